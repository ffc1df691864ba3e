"""Processes that verify, with deadlines and bounded memory."""
