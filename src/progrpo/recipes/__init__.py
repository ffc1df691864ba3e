"""Recipes: one TOML file for each run, their schema, and what is built from them."""
