"""Mixtral: a Llama whose feed-forward layers are mixtures of experts."""

import functools

from transformer.errors import ConfigError
from transformer.limits import Heads, Positive, Weight
from transformer.models.llama import Llama
from transformer.nn.mixture import MixtureOfExperts
from transformer.nn.stack import Maker


class Mixtral(Llama):
    """A sparse language model (Jiang et al. 2024); `config.model` has its and `Llama`'s fields.

    Attributes:
        num_experts: E, in each layer; each expert has the width of a Llama's feed-forward layer.
        experts_per_token: k, the number of experts that compute each token.
        capacity_factor: see `nn.mixture.MixtureOfExperts`.
        router_loss_scale: weight of the routers' balance loss, a mean over layers, in the
            objective.
        router_z_loss_scale: weight of the routers' z-loss, a mean over layers, in the objective.
    """

    num_experts: Heads = 8
    experts_per_token: Heads = 2
    capacity_factor: Positive | None = None
    router_loss_scale: Weight = 0.02
    router_z_loss_scale: Weight = 0.0

    def feed_forward_layer(self) -> Maker:
        """The maker of a block's feed-forward layer."""
        return functools.partial(
            MixtureOfExperts,
            num_experts=self.num_experts,
            experts_per_token=self.experts_per_token,
            width=self.hidden_width(),
            activation=self.activation,
            capacity_factor=self.capacity_factor,
            dtype=self.compute.dtype,
        )

    def for_writing(self) -> "Mixtral":
        """This model for generation: experts have no capacity limit.

        The limit keeps shapes fixed in training. In generation it would make a text depend on the
        texts beside it, and a token on how many tokens are read at once.
        """
        return super().for_writing().clone(capacity_factor=None)

    def loss_scales(self) -> dict[str, float]:
        """The weights of the routers' losses in the objective."""
        return {"router_balance": self.router_loss_scale, "router_z": self.router_z_loss_scale}

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        if self.experts_per_token > self.num_experts:
            raise ConfigError(
                f"config.model.experts_per_token ({self.experts_per_token}) is more than "
                f"config.model.num_experts ({self.num_experts})."
            )
