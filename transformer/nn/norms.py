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
        offset: added to the learned scale, whose initial value is lower by as much. With 1.0, as in
            Gemma, weight decay draws the total scale to one instead of zero.
    """

    epsilon: float = 1e-6
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        init = nn.initializers.constant(1.0 - self.offset)
        scale = self.param("scale", named(init, "embed"), x.shape[-1:])
        return rms_norm(x, self.offset + scale, epsilon=self.epsilon)
