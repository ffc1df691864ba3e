"""progrpo with verl on Ray: a plugin, and the engine of ``engine = "verl"``."""
