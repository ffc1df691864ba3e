"""Answers in mathematics."""
