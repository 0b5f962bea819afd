"""Names of classes; several classes may share a name."""

from collections import Counter
from collections.abc import Sequence


def distinct_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Distinct names for all classes: classes that share a name get their number behind it.

    ImageNet has two cranes, a bird and a machine: "crane (134)" and "crane (517)".

    Args:
        labels: the labels of the classes, as they are kept and published.
    """
    names = list(labels)
    # A name with a number may be the name of another class.
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
