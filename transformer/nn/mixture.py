"""A feed-forward layer of many experts, of which a few compute each token."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import KeyPath
from jaxtyping import Array, Bool, Float

from transformer.nn.linear import Linear, named
from transformer.nn.taps import tap
from transformer.ops.activations import ACTIVATIONS
from transformer.ops.routing import (
    ExpertKernels,
    balance_loss,
    dropless_experts,
    expert_capacity,
    experts_with_capacity,
    limited_capacity,
    route,
    router_z_loss,
)
from transformer.sharding import constrain, gathered
from transformer.types import Params

# The collection of auxiliary losses that modules add to the objective, for tasks that use it.
LOSSES = "losses"


class MixtureOfExperts(nn.Module):
    """Gated feed-forward layers without biases, and a router (Jiang et al. 2024, section 2.1).

    The router computes in float32 whatever the dtype is (Fedus et al. 2021, section 2.4). Each call
    puts `router_balance` and `router_z` into the collection `losses` if that is mutable. Padding
    does not count in either loss and takes no slot of an expert: real tokens get the same outputs
    as without padding.

    Attributes:
        num_experts: E.
        experts_per_token: k.
        width: F, of the hidden layer of each expert.
        activation: activation of the gates, a name in `ops.activations.ACTIVATIONS`.
        capacity_factor: an expert computes at most this many times its even share of a call's
            tokens, and drops the others; None computes all. See `ops.routing`.
        init_scale: standard deviation of the other kernels at initialisation.
        output_init_scale: standard deviation of the last kernel at initialisation.
        dtype: of the experts' computation.
    """

    num_experts: int
    experts_per_token: int
    width: int
    activation: str = "silu"
    capacity_factor: float | None = None
    init_scale: float = 0.02
    output_init_scale: float = 0.02
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], valid: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B T D"]:
        """Computes each token by its experts.

        Args:
            x: the hidden states.
            valid: False at padding; None means no padding.
        """
        tokens = x.reshape(-1, x.shape[-1])
        real = None if valid is None else valid.reshape(-1)
        router = Linear(
            (self.num_experts,),
            ("embed", "expert"),
            use_bias=False,
            init_scale=self.init_scale,
            name="router",
        )
        logits = tap(self, "router", router(tokens))
        routing = route(logits, self.experts_per_token)
        if self.is_mutable_collection(LOSSES) and not self.is_initializing():
            self.sow(LOSSES, "router_balance", balance_loss(routing, real))
            self.sow(LOSSES, "router_z", router_z_loss(logits, real))
        experts = Experts(
            self.num_experts,
            self.width,
            self.init_scale,
            self.output_init_scale,
            self.dtype,
            name="experts",
        )
        kernels, activation = experts(x.shape[-1]), ACTIVATIONS[self.activation]
        tokens = tokens.astype(jnp.dtype(self.dtype))
        if self.capacity_factor is None:
            output = dropless_experts(tokens, routing, kernels, activation)
        else:
            rule = (self.num_experts, self.experts_per_token, self.capacity_factor)
            output = experts_with_capacity(
                tokens,
                routing,
                kernels,
                activation,
                expert_capacity(len(tokens), *rule),
                place=lambda x: constrain(x, "expert", None, "features"),
                valid=real,
                limit=None if real is None else limited_capacity(real, *rule),
            )
        return output.reshape(x.shape)


class Experts(nn.Module):
    """The kernels of all experts; attributes as in `MixtureOfExperts`."""

    num_experts: int
    width: int
    init_scale: float
    output_init_scale: float
    dtype: str

    @nn.compact
    def __call__(self, model_width: int) -> ExpertKernels:
        wide, back = ("expert", "embed", "mlp"), ("expert", "mlp", "embed")
        into = (self.num_experts, model_width, self.width)
        out = (self.num_experts, self.width, model_width)
        return ExpertKernels(
            gate=Kernel(into, wide, self.init_scale, self.dtype, name="gate")(),
            up=Kernel(into, wide, self.init_scale, self.dtype, name="up")(),
            down=Kernel(out, back, self.output_init_scale, self.dtype, name="down")(),
        )


class Kernel(nn.Module):
    """A single kernel.

    Attributes:
        shape: shape of the kernel.
        axes: logical names of its axes.
        init_scale: standard deviation at initialisation.
        dtype: dtype of the returned kernel; the parameter is float32.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init_scale: float
    dtype: str

    @nn.compact
    def __call__(self) -> Float[Array, "..."]:
        init = nn.initializers.normal(self.init_scale)
        kernel = self.param("kernel", named(init, *self.axes), self.shape)
        return gathered(kernel.astype(self.dtype), *self.axes)


def active_parameters(params: Params, experts_per_token: int) -> int:
    """The number of parameters that compute one token: k experts of each mixture, and all others.

    Args:
        params: parameters of a model, or their shapes.
        experts_per_token: k, of the model's mixtures.
    """

    def active(path: KeyPath, leaf: Float[Array, "..."] | jax.ShapeDtypeStruct) -> int:
        size = math.prod(leaf.shape)
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if "experts" not in parts or parts[-1] != "kernel":
            return size
        num_experts = leaf.shape[-3]  # An axis of layers may come first.
        return size // num_experts * experts_per_token

    return sum(jax.tree.leaves(jax.tree_util.tree_map_with_path(active, params)))
