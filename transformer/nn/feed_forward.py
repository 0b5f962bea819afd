"""The position-wise feed-forward layer, plain and gated."""

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from transformer.nn.linear import Linear
from transformer.nn.taps import tap
from transformer.ops.activations import ACTIVATIONS
from transformer.sharding import constrain


class FeedForward(nn.Module):
    """Two dense layers with an activation between them (Vaswani et al. 2017, equation 2).

    Attributes:
        width: F, of the hidden layer.
        activation: a name in `ops.activations.ACTIVATIONS`.
        gated: multiplies the activation by a third projection, as in SwiGLU and GeGLU (Shazeer
            2020, equation 6).
        use_bias: on all layers.
        init_scale: standard deviation of the other kernels at initialisation.
        output_init_scale: standard deviation of the last kernel at initialisation.
        dtype: of the computation.
    """

    width: int
    activation: str = "gelu"
    gated: bool = False
    use_bias: bool = True
    init_scale: float = 0.02
    output_init_scale: float = 0.02
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], valid: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B T D"]:
        """Computes each token separately, so that `valid` makes no difference."""

        def hidden(name: str) -> Array:
            layer = Linear(
                (self.width,),
                ("embed", "mlp"),
                self.use_bias,
                self.init_scale,
                self.dtype,
                name=name,
            )
            return layer(x)

        activated = ACTIVATIONS[self.activation](hidden("gate" if self.gated else "up"))
        if self.gated:
            activated = activated * hidden("up")
        activated = tap(self, "hidden", constrain(activated, "batch", "sequence", "mlp"))
        down = Linear(
            (x.shape[-1],),
            ("mlp", "embed"),
            self.use_bias,
            init_scale=self.output_init_scale,
            dtype=self.dtype,
            name="down",
        )
        return down(activated)
