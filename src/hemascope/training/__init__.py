"""Training: ``fit`` runs the stages of a RunConfig."""
