"""Whether new cells are still of the kind a model was trained on; no labels needed."""
