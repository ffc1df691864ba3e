"""Answers to reasoning-gym's problems, scored by its own scorers."""
