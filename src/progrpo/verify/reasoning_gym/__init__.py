"""reasoning-gym's own scorers."""
