"""How far to believe a classifier: temperature, prediction sets, what is out of distribution, what to review."""
