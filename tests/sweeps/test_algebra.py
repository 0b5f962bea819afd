import pytest

from transformer.errors import ConfigError
from transformer.sweeps.algebra import chain, product, values, zipped


def test_values():
    assert list(values("a.b", range(2))) == [{"a.b": 0}, {"a.b": 1}]


def test_the_last_of_a_product_changes_fastest():
    found = product(values("a", [1, 2]), values("b", "xy"))
    assert list(found) == [{"a": a, "b": b} for a in (1, 2) for b in "xy"]


def test_a_product_of_nothing_is_the_config_as_it_is():
    assert list(product()) == [{}]
    assert list(product(values("a", []), values("b", [1]))) == []


def test_zipped():
    found = zipped(values("a", [1, 2]), values("b", [3, 4]))
    assert list(found) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]


def test_chain():
    found = product(chain(values("a", [1]), values("b", [2])), values("c", [3, 4]))
    assert list(found) == [
        {"a": 1, "c": 3},
        {"a": 1, "c": 4},
        {"b": 2, "c": 3},
        {"b": 2, "c": 4},
    ]


def test_zipped_of_different_length():
    with pytest.raises(ConfigError, match="have 2, 3 entries"):
        list(zipped(values("a", [1, 2]), values("b", [1, 2, 3])))


@pytest.mark.parametrize("combine", [product, zipped])
def test_one_key_set_twice(combine):
    with pytest.raises(ConfigError, match="both set a"):
        list(combine(values("a", [1]), values("a", [2])))
