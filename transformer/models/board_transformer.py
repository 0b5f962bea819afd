"""A board game's position as a sequence of squares, and what to play there.

Every square is a token: its piece and its place are added. One more token in front stands for the
game as a whole. Pre-norm encoder blocks follow. The policy is a score for each square, on which a
stone may be placed; the result of the game is read from the token in front. Policy and value from
one network are those of AlphaZero (Silver et al. 2018), whose convolutions are attention here.
"""

import functools
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.limits import Heads, Layers, Positive, Weight, Whole, Width
from transformer.nn.block import Block
from transformer.nn.compute import Compute
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.feed_forward import FeedForward
from transformer.nn.linear import Linear, named
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import decided, require_multiple
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.traced import RateOrOff, is_zero

# Empty, own, other; then loss, draw, win.
_PIECES, _RESULTS = 3, 3


class BoardTransformer(nn.Module):
    """Scores the moves and the results of a position; its fields are `config.model`.

    Attributes:
        num_squares: S; None takes the number that the game has.
        num_layers: L.
        num_heads: N.
        width: D.
        feed_forward_width: F; None means 4 D.
        activation: activation of the feed-forward layer.
        norm_epsilon: added to variances.
        init_scale: standard deviation of the kernels of blocks at initialisation. The usual 0.02 is
            for widths of several hundred; narrow models need more.
        dropout_rate: on embeddings, attention weights and branches.
        compute: how it computes; see `nn.compute.Compute`.
    """

    num_squares: Annotated[int, Whole(1, 1 << 10)] | None = None
    num_layers: Layers = 4
    num_heads: Heads = 4
    width: Width = 64
    feed_forward_width: Width | None = None
    activation: Activation = "gelu"
    norm_epsilon: Positive = 1e-5
    init_scale: Weight = 0.02
    dropout_rate: RateOrOff = 0.0
    compute: Compute = Compute()

    def setup(self) -> None:
        dtype = self.compute.dtype
        num_tokens = 1 + decided("num_squares", self.num_squares)
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
            Embedding, width=self.width, initializer=nn.initializers.normal(self.init_scale)
        )
        self.token_embedding = table(_PIECES, axes=(None, "embed"), dtype=dtype)
        self.position_embedding = table(num_tokens, axes=("positions", "embed"), dtype=dtype)
        init = named(nn.initializers.normal(self.init_scale), "tokens", "embed")
        self.game_token = self.param("game_token", init, (1, self.width))
        self.dropout = Dropout(self.dropout_rate)
        self.blocks = self.compute.stack(block, self.num_layers)
        self.final_norm = norm()
        self.policy = Linear((1,), ("embed", None), dtype=dtype)
        self.result = Linear((_RESULTS,), ("embed", None), dtype=dtype)

    def __call__(self, boards: Int[Array, "B S"]) -> Float[Array, "B T D"]:
        """The hidden states of all tokens: the game, then its squares.

        Args:
            boards: 0 on empty squares, 1 on those of the player to move, 2 on the other's.
        """
        pieces = self.token_embedding(boards)
        front = jnp.broadcast_to(self.game_token.astype(pieces.dtype), (len(boards), 1, self.width))
        x = tap(self, "token_embedding", jnp.concatenate([front, pieces], axis=1))
        places = self.position_embedding(jnp.arange(x.shape[1])[None, :])
        x = x + tap(self, "position_embedding", places)
        x, _ = self.blocks(self.dropout(x))
        return tap(self, "final", self.final_norm(x))

    def evaluate(
        self, boards: Int[Array, "B S"]
    ) -> tuple[Float[Array, "B S"], Float[Array, "B 3"]]:
        """Scores of the moves and of the results (loss, draw, win), in float32."""
        features = self(boards)
        moves = self.policy(features[:, 1:])[..., 0].astype(jnp.float32)
        return moves, self.result(features[:, 0]).astype(jnp.float32)

    def moves(self, boards: Int[Array, "B S"]) -> Float[Array, "B S"]:
        """Scores of the moves alone, in float32."""
        return self.evaluate(boards)[0]

    def chosen_attention(self, boards: Int[Array, "B S"] | None = None) -> str:
        """The attention implementation that training uses for boards of this (or a usual) size.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        return self.compute.chosen_attention(
            self.num_heads,
            self.width // self.num_heads,
            None if boards is None else boards.shape[1] + 1,
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
