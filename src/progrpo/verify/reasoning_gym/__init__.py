"""The answers of reasoning-gym's problems, scored by its own scorers."""
