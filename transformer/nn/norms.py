"""Layer normalisations with their parameters."""

import flax.linen as nn
from jaxtyping import Array, Float

from transformer.nn.linear import named
from transformer.ops.normalization import layer_norm, rms_norm


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016).

    Attributes:
        use_bias: whether to shift as well as scale.
        epsilon: added to the variance.
    """

    use_bias: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        width = x.shape[-1:]
        scale = self.param("scale", named(nn.initializers.ones, "embed"), width)
        bias = None
        if self.use_bias:
            bias = self.param("bias", named(nn.initializers.zeros, "embed"), width)
        return layer_norm(x, scale, bias, epsilon=self.epsilon)


class RMSNorm(nn.Module):
    """Root mean square normalisation over the last axis (Zhang and Sennrich 2019).

    Attributes:
        epsilon: added to the mean square.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale = self.param("scale", named(nn.initializers.ones, "embed"), x.shape[-1:])
        return rms_norm(x, scale, epsilon=self.epsilon)
