"""Fuzzes of keys are long: a part of them is run, all where that is asked for."""

from tests.interop.keys import is_tried


def pytest_collection_modifyitems(config, items):
    left = [
        item
        for item in items
        if item.path.name.startswith("test_keys_")
        and item.originalname.startswith("test_a_key_")
        and not is_tried(item.nodeid)
    ]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]
