"""``python -m progrpo`` is ``progrpo``."""

from progrpo.cli import main

main()
