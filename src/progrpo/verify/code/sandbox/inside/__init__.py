"""The code that runs in the sandbox's processes; it uses only the standard library."""
