"""White cells in a haematologist's words: eleven attributes told from a network's features."""
