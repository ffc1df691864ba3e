"""What runs in the sandbox's own processes: the standard library alone, and nothing of the trainer."""
