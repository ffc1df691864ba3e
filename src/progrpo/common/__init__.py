"""Errors, files, signals, progress, environment and processes, which every room may use."""
