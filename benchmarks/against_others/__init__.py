"""The parts of ``audit_against_others.py``: sets of images with planted faults, both sides' answers, their measures."""
