"""What a run leaves behind: its folder, its rollouts, its checkpoints, its evaluations."""
