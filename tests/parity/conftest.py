"""The order of the mutation tests."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the mutation tests by their pair of twins: building a pair takes seconds."""
    places = [i for i, item in enumerate(items) if item.path.name == "test_mutations.py" and _pair(item)]
    first: dict[str, int] = {}
    for i in places:
        first.setdefault(_pair(items[i]), i)
    for place, item in zip(
        places, sorted((items[i] for i in places), key=lambda item: first[_pair(item)]), strict=True
    ):
        items[place] = item


def _pair(item: pytest.Item) -> str:
    """Returns the pair that a test asks for, "" if none."""
    return item.callspec.params.get("pair", "") if hasattr(item, "callspec") else ""
