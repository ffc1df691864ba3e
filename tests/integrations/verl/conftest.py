"""Two launches of verl at a time: one uses hardly more than one core."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that share a launch of verl go to one process, so that it is launched once."""
    for item in items:
        if "run" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("one run"))
