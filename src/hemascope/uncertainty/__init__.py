"""How far a prediction is to be believed: numpy, scipy and scikit-learn alone."""
