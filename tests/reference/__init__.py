"""Slow, obvious re-implementations to compare the package with: plain Python, written from the formulas."""
