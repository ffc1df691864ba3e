"""What a run will need and how it is launched, planned without loading a model: ``progrpo train --dry-run``."""
