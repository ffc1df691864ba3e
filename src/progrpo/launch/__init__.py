"""What a run will need and what will be launched, reckoned without loading a model: ``progrpo train --dry-run``."""
