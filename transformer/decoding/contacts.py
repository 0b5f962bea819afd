"""Which residues of a protein touch each other, read off the attention weights of its model."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.decoding.marginals import residue_ids
from transformer.errors import DataError, MissingDependencyError
from transformer.nn.heads import TextEncoder
from transformer.nn.layouts import layer_name, unstacked
from transformer.nn.taps import RECORDED
from transformer.ops.contacts import contact_features, contact_probabilities
from transformer.types import Params

# Residues closer than this in the sequence touch anyway (Rao et al. 2021, section 3).
SEPARATION = 6
# The inverse strength of the penalty on the regression's weights, as published.
_INVERSE_PENALTY = 0.15


class Regression(NamedTuple):
    """A logistic regression from attention maps to contacts.

    Attributes:
        weight: `[M]` float32, of each head, those of the first layer first.
        bias: `[1]` float32.
    """

    weight: np.ndarray
    bias: np.ndarray


def attention_features(
    model: TextEncoder, params: Params, tokenizer: EncoderTokenizer, sequence: str
) -> Float[np.ndarray, "M n n"]:
    """The symmetric, corrected attention maps of all heads between the n residues of a protein.

    Args:
        model: an encoder whose layers are all global.
        params: its parameters.
        tokenizer: its tokenizer, in which each residue is one token.
        sequence: n residues.

    Raises:
        DataError: if a residue is not one token, or there are too many.
    """
    ids = residue_ids(tokenizer, sequence, model.context)
    tokens = np.array([[tokenizer.start, *ids, tokenizer.separator]], np.int32)
    return np.asarray(_features(model, params, tokens))


@functools.partial(jax.jit, static_argnums=0)
def _features(model: TextEncoder, params: Params, tokens: Int[Array, "1 T"]) -> Array:
    _, found = model.apply({"params": params}, tokens, mutable=[RECORDED])
    layers = unstacked(found[RECORDED]["blocks"])
    weights = jnp.concatenate(
        [layers[layer_name(layer)]["attention"]["weights"][0] for layer in range(model.num_layers)]
    )
    # Without the tokens around the residues.
    return contact_features(weights[:, 1:-1, 1:-1].astype(jnp.float32))


def contacts(
    features: Float[np.ndarray, "M n n"], regression: Regression
) -> Float[np.ndarray, "n n"]:
    """The probability of each contact."""
    return np.asarray(contact_probabilities(jnp.asarray(features), *map(jnp.asarray, regression)))


def fit_regression(
    features: Sequence[Float[np.ndarray, "M _ _"]], known: Sequence[Bool[np.ndarray, "_ _"]]
) -> Regression:
    """A regression with a penalty on the sum of weights, so that few heads are used.

    As published: some 20 proteins suffice (Rao et al. 2021, section 3).

    Args:
        features: of each protein, `[M, n, n]`, where n differs.
        known: its contacts, `[n, n]`.

    Raises:
        MissingDependencyError: if scikit-learn is not installed.
        DataError: if there are no pairs of residues far enough apart, or no contacts among them.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingDependencyError("scikit-learn", "proteins", "fitting contacts") from None
    pairs = [_far_pairs(len(each)) for each in known]
    rows = np.concatenate([maps[:, i, j].T for maps, (i, j) in zip(features, pairs, strict=True)])
    truth = np.concatenate([each[i, j] for each, (i, j) in zip(known, pairs, strict=True)])
    if len(np.unique(truth)) < 2:
        raise DataError(
            f"the known contacts have none between residues that are {SEPARATION} or more apart, "
            f"or nothing else: there is nothing to learn."
        )
    model = LogisticRegression(
        l1_ratio=1.0, C=_INVERSE_PENALTY, solver="liblinear", max_iter=1000, random_state=0
    )
    model.fit(rows, truth)
    return Regression(
        np.asarray(model.coef_[0], np.float32), np.asarray(model.intercept_, np.float32)
    )


def precision(
    probabilities: Float[np.ndarray, "n n"], known: Bool[np.ndarray, "n n"], least: int = SEPARATION
) -> float:
    """The fraction of contacts among the n most probable pairs, the published P@L.

    Args:
        probabilities: of all pairs.
        known: the contacts.
        least: pairs closer than this in the sequence do not count.
    """
    first, second = _far_pairs(len(known), least)
    best = np.argsort(-probabilities[first, second], kind="stable")[: len(known)]
    return float(known[first, second][best].mean()) if len(best) else 0.0


def likely_pairs(
    probabilities: Float[np.ndarray, "n n"], least: float = 0.05
) -> list[tuple[int, int, float]]:
    """Pairs of residues that are far enough apart, from 0, and their probabilities; the best first.

    Args:
        probabilities: of all pairs.
        least: pairs of lower probability are left out.
    """
    first, second = _far_pairs(len(probabilities))
    values = probabilities[first, second]
    order = [place for place in np.argsort(-values, kind="stable") if values[place] >= least]
    return [(int(first[n]), int(second[n]), float(values[n])) for n in order]


def _far_pairs(size: int, least: int = SEPARATION) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(size, least)


def own_regression(params: Params) -> Regression | None:
    """The regression in the parameters of a published model; None if there is none."""
    head = nn.meta.unbox(params).get("contact_head")
    if head is None or not np.any(head["weight"]):
        return None
    return Regression(np.asarray(head["weight"]), np.asarray(head["bias"]))
