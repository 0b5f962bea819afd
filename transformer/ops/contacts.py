"""Contacts of residues from attention weights (Rao et al. 2021, section 3).

Attention weights of two residues to each other are added up, corrected for residues that get much
attention from everywhere, and weighted by a logistic regression.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def average_product_correction(maps: Float[Array, "... T T"]) -> Float[Array, "... T T"]:
    """Subtracts from each entry the product of its row's and its column's sum over the total.

    Dunn et al. 2008, equation 4, for sums in place of means. A map of zeros stays as it is.
    """
    rows, columns = jnp.sum(maps, -1, keepdims=True), jnp.sum(maps, -2, keepdims=True)
    total = jnp.sum(rows, -2, keepdims=True)
    return maps - rows * columns / jnp.where(total == 0.0, 1.0, total)


def contact_features(weights: Float[Array, "... T T"]) -> Float[Array, "... T T"]:
    """The symmetric and corrected maps that contacts are predicted from.

    Args:
        weights: attention weights between residues alone, without the tokens around them.
    """
    return average_product_correction(weights + jnp.swapaxes(weights, -1, -2))


def contact_probabilities(
    features: Float[Array, "*B M T T"], weight: Float[Array, "M"], bias: Float[Array, "1"]
) -> Float[Array, "*B T T"]:
    """The probability that two residues touch each other, by a logistic regression.

    Args:
        features: see `contact_features`; M heads of all layers.
        weight: of each head.
        bias: added to the sum.
    """
    return jax.nn.sigmoid(jnp.einsum("...mts,m->...ts", features, weight) + bias)
