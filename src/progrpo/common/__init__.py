"""What has no better room: errors, files, signals, progress, processes."""
