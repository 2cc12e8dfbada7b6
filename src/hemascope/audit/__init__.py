"""Checks over a set of cells: what does not belong, and why."""
