"""hemascope: from a pile of single blood-cell images to a classifier a haematology lab can trust."""

__version__ = "0.1.0"
