"""Programs with tests."""
