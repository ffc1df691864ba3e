"""Processes that verify."""
