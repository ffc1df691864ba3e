"""Errors, files, signals, progress, environment and processes: what every room may use."""
