"""The logistic regression from attention weights to contacts; see `ops.contacts`."""

import flax.linen as nn
from jaxtyping import Array, Float

from transformer.nn.linear import named


class ContactHead(nn.Module):
    """One weight for each attention head of a model, and a bias; both are 0 at first.

    Attributes:
        num_maps: L N, the attention heads of all layers.
    """

    num_maps: int

    def setup(self) -> None:
        zeros = nn.initializers.zeros
        self.weight = self.param("weight", named(zeros, None), (self.num_maps,))
        self.bias = self.param("bias", named(zeros, None), (1,))

    def weights(self) -> tuple[Float[Array, "M"], Float[Array, "1"]]:
        """The weights, those of the first layer first, and the bias."""
        return self.weight, self.bias
