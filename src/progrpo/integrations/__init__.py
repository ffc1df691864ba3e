"""Thin adapters between the core and other people's engines. No maths in here."""
