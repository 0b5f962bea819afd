"""Names of classes, of which several may have the same one."""

from collections import Counter
from collections.abc import Sequence


def distinct_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Names that tell all classes apart: of several with one name, each has its number behind it.

    ImageNet has two cranes, a bird and a machine: "crane (134)" and "crane (517)".

    Args:
        labels: of the classes, as they are kept and published.
    """
    names = list(labels)
    # What has a number now may be the name of another class.
    while len(set(names)) < len(names):
        counts = Counter(names)
        names = [
            f"{name} ({place})" if counts[name] > 1 else name for place, name in enumerate(names)
        ]
    return tuple(names)


def class_places(labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The numbers of the classes that a name may mean: its own, or one with a number behind it.

    Args:
        labels: as in `distinct_names`.
    """
    places: dict[str, tuple[int, ...]] = {}
    for place, label in enumerate(labels):
        places[label] = (*places.get(label, ()), place)
    for place, name in enumerate(distinct_names(labels)):
        places.setdefault(name, (place,))
    return places
