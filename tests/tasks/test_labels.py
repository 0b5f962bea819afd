"""Classes that share a name keep their own numbers and probabilities."""

import numpy as np

from transformer.tasks.base_labels import class_prediction, distinct_names


def test_names_that_several_classes_have():
    names = ("crane", "dog", "crane", "maillot", "maillot")
    assert distinct_names(names) == ("crane (0)", "dog", "crane (2)", "maillot (3)", "maillot (4)")
    assert distinct_names(("cat", "dog")) == ("cat", "dog")
    # A name that another class would get.
    assert len(set(distinct_names(("crane", "crane", "crane (0)")))) == 3


def test_each_class_of_one_name_has_its_probability():
    scores = np.log(np.array([0.5, 0.1, 0.3, 0.1], np.float32))
    found = class_prediction(scores, ("crane", "heron", "crane", "dog")).details
    assert (found["predicted"], found["class"]) == ("crane (0)", 0)
    expected = {"crane (0)": 0.5, "crane (2)": 0.3, "heron": 0.1, "dog": 0.1}
    assert found["probabilities"].keys() == expected.keys()
    for name, probability in expected.items():
        np.testing.assert_allclose(found["probabilities"][name], probability, rtol=1e-6)
