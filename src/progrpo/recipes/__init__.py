"""Recipes: one TOML file a run, its schema, and what it builds."""
