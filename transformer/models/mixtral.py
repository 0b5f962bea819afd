"""Mixtral: a Llama whose feed-forward layers are mixtures of experts."""

import functools
from collections.abc import Callable

import flax.linen as nn

from transformer.errors import ConfigError
from transformer.limits import Heads, Positive, Weight
from transformer.models.llama import Llama
from transformer.nn.mixture import MixtureOfExperts


class Mixtral(Llama):
    """A sparse language model (Jiang et al. 2024); its fields and those of `Llama`.

    Attributes:
        num_experts: E, of each layer; each has the width of a Llama's feed-forward layer.
        experts_per_token: k, of them compute a token.
        capacity_factor: see `nn.mixture.MixtureOfExperts`.
        router_loss_scale: of the routers' balance loss in the objective, a mean over layers.
        router_z_loss_scale: of the routers' z-loss in the objective, likewise.
    """

    num_experts: Heads = 8
    experts_per_token: Heads = 2
    capacity_factor: Positive | None = None
    router_loss_scale: Weight = 0.02
    router_z_loss_scale: Weight = 0.0

    def feed_forward_layer(self) -> Callable[..., nn.Module]:
        """What makes the feed-forward layer of a block."""
        return functools.partial(
            MixtureOfExperts,
            num_experts=self.num_experts,
            experts_per_token=self.experts_per_token,
            width=self.hidden_width(),
            activation=self.activation,
            capacity_factor=self.capacity_factor,
            dtype=self.dtype,
        )

    def for_writing(self) -> "Mixtral":
        """This model as it writes texts: experts compute all they are sent.

        Capacity makes shapes of training fixed. Where texts are written it would let a text depend
        on those beside it, and a token on how many are read at once.
        """
        return super().for_writing().clone(capacity_factor=None)

    def loss_scales(self) -> dict[str, float]:
        """The weights of the routers' losses in the objective."""
        return {"router_balance": self.router_loss_scale, "router_z": self.router_z_loss_scale}

    def check(self) -> None:
        """Refuses values that cannot make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        if self.experts_per_token > self.num_experts:
            raise ConfigError(
                f"config.model.experts_per_token ({self.experts_per_token}) is more than "
                f"config.model.num_experts ({self.num_experts})."
            )
