"""Decision Transformer: a decoder acts so that the return comes true that it is asked for.

Chen et al. 2021, section 3: a trajectory is a sequence of returns-to-go, observations and actions.
Each is embedded as one token, a vector for the turn is added, and causal blocks follow. The action
is predicted from the token of the observation. Here the action before stands first in each turn
(return and observation follow), so that a turn is always read as three tokens at once; and a return
may be hidden, which makes the same model a clone of the behaviour that it has seen.
"""

import functools
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from transformer.limits import Heads, Layers, Positive, Weight, Whole, Width
from transformer.nn.block import Block
from transformer.nn.caches import KVCache
from transformer.nn.compute import Compute
from transformer.nn.decoder import Caches
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.feed_forward import FeedForward
from transformer.nn.linear import Linear
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import decided, require_multiple
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.masks import at_positions, causal
from transformer.traced import RateOrOff, is_zero

# Tokens of a turn: the action before, the return-to-go, the observation.
_TOKENS = 3
Size = Annotated[int, Whole(1, 1 << 16)]


class DecisionTransformer(nn.Module):
    """Scores the next actions of agents; its fields are `config.model`.

    Attributes:
        num_features: O, of an observation; None takes those of the task.
        num_values: how many values each feature has; None takes the task's number.
        num_actions: A; None takes the task's number.
        num_turns: T, of the longest episode; None takes the task's number.
        num_layers: L.
        num_heads: N.
        width: D.
        feed_forward_width: F; None means 4 D.
        activation: activation of the feed-forward layer.
        norm_epsilon: added to variances.
        init_scale: standard deviation of kernels and tables at initialisation. The usual 0.02 is
            for widths of several hundred; narrow models need more.
        dropout_rate: on embeddings, attention weights and branches.
        compute: how it computes; see `nn.compute.Compute`.
    """

    num_features: Size | None = None
    num_values: Size | None = None
    num_actions: Size | None = None
    num_turns: Size | None = None
    num_layers: Layers = 3
    num_heads: Heads = 1
    width: Width = 128
    feed_forward_width: Width | None = None
    activation: Activation = "relu"
    norm_epsilon: Positive = 1e-5
    init_scale: Weight = 0.02
    dropout_rate: RateOrOff = 0.0
    compute: Compute = Compute()

    def setup(self) -> None:
        dtype = self.compute.dtype
        scales = {"init_scale": self.init_scale, "output_init_scale": self.init_scale}
        norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon)
        block = functools.partial(
            Block,
            attention=self.compute.attention_layer(
                num_heads=self.num_heads, dropout_rate=self.dropout_rate, **scales
            ),
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width or 4 * self.width,
                activation=self.activation,
                dtype=dtype,
                **scales,
            ),
            norm=norm,
            dropout_rate=self.dropout_rate,
        )
        table = functools.partial(
            Embedding,
            width=self.width,
            axes=(None, "embed"),
            initializer=nn.initializers.normal(self.init_scale),
            dtype=dtype,
        )
        self.features_read = decided("num_features", self.num_features)
        self.values_of_feature = decided("num_values", self.num_values)
        num_actions = decided("num_actions", self.num_actions)
        # One more action stands before the first.
        self.action_embedding = table(num_actions + 1)
        self.feature_embedding = table(self.features_read * self.values_of_feature)
        self.turn_embedding = table(decided("num_turns", self.num_turns))
        self.return_embedding = Linear(
            (self.width,), (None, "embed"), init_scale=self.init_scale, dtype=dtype
        )
        self.embedding_norm = norm()
        self.dropout = Dropout(self.dropout_rate)
        self.blocks = self.compute.stack(block, self.num_layers)
        self.final_norm = norm()
        self.output = Linear((num_actions,), ("embed", None), dtype=dtype)

    def decide(
        self,
        before: Int[Array, "B T"],
        returns: Float[Array, "B T"],
        asked: Bool[Array, "B T"],
        observations: Int[Array, "B T O"],
        turns: Int[Array, "B T"] | None = None,
        cache: Caches | None = None,
    ) -> tuple[Float[Array, "B T A"], Caches | None]:
        """Scores the action of each turn.

        Args:
            before: the action of the turn before; A before the first.
            returns: the return-to-go.
            asked: where it is False, the return is hidden.
            observations: the value of each feature.
            turns: the number of each turn; None means 0, 1, 2, ...
            cache: from `empty_cache` or an earlier call.

        Returns:
            Logits in float32, and the cache to pass to the next call.
        """
        if turns is None:
            turns = jnp.broadcast_to(jnp.arange(before.shape[1]), before.shape)
        x = self._embedded(before, returns, asked, observations, turns)
        positions = (_TOKENS * turns[..., None] + jnp.arange(_TOKENS)).reshape(len(before), -1)
        mask = causal() & at_positions(positions, positions if cache is None else None)
        x, cache = self.blocks(self.dropout(x), cache, mask=mask, positions=positions)
        x = tap(self, "final", self.final_norm(x[:, _TOKENS - 1 :: _TOKENS]))
        return self.output(x).astype(jnp.float32), cache

    def _embedded(
        self,
        before: Int[Array, "B T"],
        returns: Float[Array, "B T"],
        asked: Bool[Array, "B T"],
        observations: Int[Array, "B T O"],
        turns: Int[Array, "B T"],
    ) -> Float[Array, "B U D"]:
        """The tokens, three for each turn."""
        known = asked.astype(returns.dtype)
        rows = observations + jnp.arange(self.features_read) * self.values_of_feature
        shape = (*before.shape, self.features_read, self.width)
        seen = self.feature_embedding(rows.reshape(len(rows), -1)).reshape(shape).sum(-2)
        parts = (
            self.action_embedding(before),
            self.return_embedding(jnp.stack([known * returns, known], axis=-1)),
            seen,
        )
        x = jnp.stack(parts, axis=2) + self.turn_embedding(turns)[:, :, None]
        x = x.reshape(len(before), -1, self.width)
        return tap(self, "token_embedding", self.embedding_norm(x))

    def empty_cache(self, batch_size: int) -> Caches:
        """An empty cache with room for whole episodes."""
        length = _TOKENS * decided("num_turns", self.num_turns)
        head_dim = self.width // self.num_heads
        one = KVCache.empty(batch_size, length, self.num_heads, head_dim, self.compute.dtype)
        return self.compute.caches(one, self.num_layers)

    def chosen_attention(self, before: Int[Array, "B T"] | None = None, *others: Array) -> str:
        """The attention implementation that training uses for episodes of this (or a usual) length.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        return self.compute.chosen_attention(
            self.num_heads,
            self.width // self.num_heads,
            None if before is None else _TOKENS * before.shape[1],
            mask=causal(),
            has_dropout=not is_zero(self.dropout_rate),
        )

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        require_multiple("heads must divide the width", width=self.width, num_heads=self.num_heads)
        self.compute.require_compilable(num_layers=self.num_layers)
        self.chosen_attention()
