"""The base of encoder-decoders: everything around their blocks."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import Heads, Layers, Token, VocabSize, Width
from transformer.nn.block import DecoderCache
from transformer.nn.caches import KVCache
from transformer.nn.compute import Compute
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.sizes import decided
from transformer.nn.stack import Maker
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.masks import Mask, causal, segments
from transformer.traced import RateOrOff

# The caches of all layers; in a scanned stack, one with a leading axis L.
Caches = DecoderCache | tuple[DecoderCache, ...]
# What the encoder reads: tokens, or a vector for each frame of a recording.
Source = Int[Array, "B S"] | Float[Array, "B S M"]


class AnyEncoderDecoder(nn.Module):
    """Maps a source and the target so far to scores of the target's next tokens.

    The encoder reads the source in both directions. The decoder reads the target from left to right
    and, in each layer, attends to the encoder's output. A subclass calls `surround` in its `setup`
    and defines `read`: what the source is. It overrides `source_stride` if its memory is shorter
    than the source.

    Attributes:
        vocab_size: V; None takes the size of the tokenizer's vocabulary.
        num_encoder_layers: blocks of the encoder.
        num_decoder_layers: blocks of the decoder.
        num_heads: N.
        width: D.
        feed_forward_width: F.
        activation: activation of the feed-forward layer.
        dropout_rate: on embeddings and branches.
        compute: how it computes; see `nn.compute.Compute`.
        begin_id: the token that begins every target, which some published models have; None takes
            the tokenizer's end token.
    """

    vocab_size: VocabSize | None = None
    num_encoder_layers: Layers = 6
    num_decoder_layers: Layers = 6
    num_heads: Heads = 8
    width: Width = 512
    feed_forward_width: Width = 2048
    activation: Activation = "relu"
    dropout_rate: RateOrOff = 0.1
    compute: Compute = Compute()
    begin_id: Token | None = None

    def surround(self, block: Maker, attention: Maker, *, init_scale: float) -> None:
        """Makes the parts that all encoder-decoders have; called by `setup`.

        Args:
            block: the maker of the encoder's blocks.
            attention: the maker of the attention to the memory, which the decoder's blocks add.
            init_scale: standard deviation of the token table at initialisation.

        Raises:
            ConfigError: if nothing has decided the size of the vocabulary.
        """
        self.token_embedding = Embedding(
            decided("vocab_size", self.vocab_size),
            self.width,
            initializer=nn.initializers.normal(init_scale),
            dtype=self.compute.dtype,
        )
        self.dropout = Dropout(self.dropout_rate)
        self.encoder = self.compute.stack(block, self.num_encoder_layers)
        decoder_block = functools.partial(block, cross_attention=attention)
        self.decoder = self.compute.stack(decoder_block, self.num_decoder_layers)

    @property
    def source_stride(self) -> int:
        """How many steps of the source share one vector of the memory."""
        return 1

    def __call__(
        self,
        source: Source,
        target: Int[Array, "B T"],
        **layout: Int[Array, "B _"] | None,
    ) -> Float[Array, "B T V"]:
        """Scores every next token of the target, in float32; arguments as in `features`."""
        return self.logits(self.features(source, target, **layout))

    def features(
        self,
        source: Source,
        target: Int[Array, "B T"],
        *,
        source_segments: Int[Array, "B S"] | None = None,
        target_segments: Int[Array, "B T"] | None = None,
        source_positions: Int[Array, "B S"] | None = None,
        target_positions: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The hidden states before the output layer.

        Args:
            source: what to read: tokens, or what `read` takes.
            target: the tokens to write, shifted right by one: the first is the begin token.
            source_segments: the pair that each token belongs to, if several share a row; 0 is
                padding. None means one pair per row, without padding.
            target_segments: the same for the target.
            source_positions: positions of the tokens within their sentences; None means 0, 1, 2,
                ...
            target_positions: the same for the target.

        Raises:
            ValueError: if only one side has segments.
        """
        memory = self.encode(source, source_segments, source_positions)
        return self.written(
            memory,
            target,
            source_segments=source_segments,
            target_segments=target_segments,
            target_positions=target_positions,
        )

    def written(
        self,
        memory: Float[Array, "B R D"],
        target: Int[Array, "B T"],
        *,
        source_segments: Int[Array, "B S"] | None = None,
        target_segments: Int[Array, "B T"] | None = None,
        target_positions: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The same from the memory, for callers that need that for something else, too.

        Raises:
            ValueError: if only one side has segments.
        """
        if (source_segments is None) != (target_segments is None):
            raise ValueError("segments of one side alone say nothing about the other: give both.")
        mask, memory_mask = causal(), None
        if target_segments is not None and source_segments is not None:
            mask = mask & segments(target_segments)
            memory_mask = segments(target_segments, source_segments[:, :: self.source_stride])
        features, _ = self.decode(
            target, memory, mask=mask, memory_mask=memory_mask, positions=target_positions
        )
        return features

    def encode(
        self,
        source: Source,
        source_segments: Int[Array, "B S"] | None = None,
        positions: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B R D"]:
        """Computes the memory of a source; arguments as in `features`.

        R is S, divided by `source_stride` and rounded up.
        """
        mask = None
        if source_segments is not None:
            mask = segments(source_segments[:, :: self.source_stride])
        x = self.read(source, source_segments, positions)
        bias = self.encoder_bias(_places(x, positions))
        x, _ = self.encoder(x, mask=mask, bias=bias)
        return tap(self, "encoder_final", self.finish_encoder(x))

    def memory_lengths(self, source_lengths: Int[Array, "B"]) -> Int[Array, "B"]:
        """How many vectors of the memory belong to sources of these lengths."""
        return -(-source_lengths // self.source_stride)

    def read(
        self,
        source: Source,
        source_segments: Int[Array, "B S"] | None,
        positions: Int[Array, "B S"] | None,
    ) -> Float[Array, "B R D"]:
        """The input of the encoder's first block; arguments as in `features`."""
        raise NotImplementedError

    def decode(
        self,
        target: Int[Array, "B T"],
        memory: Float[Array, "B R D"] | None,
        *,
        mask: Mask,
        memory_mask: Mask | None,
        positions: Int[Array, "B T"] | None = None,
        slots: Int[Array, "B T"] | None = None,
        cache: Caches | None = None,
    ) -> tuple[Float[Array, "B T D"], Caches | None]:
        """The hidden states of the target, and the cache to pass to the next call.

        Args:
            target: the text, or with a cache only its new tokens.
            memory: from `encode`; None if the cache holds it already.
            mask: which tokens of the text each token sees, with the positions of the keys unless
                slots are positions.
            memory_mask: which tokens of the source each token sees.
            positions: positions of the tokens; None means 0, 1, 2, ...
            slots: cache slots of the tokens; None means the positions.
            cache: from `empty_cache` or an earlier call.
        """
        places = keys = _places(target, positions)
        if mask.key_positions is not None:
            keys = mask.key_positions
        elif cache is not None:
            keys = jnp.arange(num_slots(cache))[None, :]
        x, cache = self.decoder(
            self.embed(target, places, "decoder"),
            cache,
            mask=mask,
            positions=positions,
            slots=slots,
            memory=memory,
            memory_mask=memory_mask,
            bias=self.decoder_bias(places, keys),
        )
        return tap(self, "decoder_final", self.finish_decoder(x)), cache

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"], stack: str
    ) -> Float[Array, "B T D"]:
        """The input of the first block of a stack, `encoder` or `decoder`.

        By default these are the vectors of the tokens.
        """
        return self.dropout(tap(self, f"{stack}_token_embedding", self.token_embedding(tokens)))

    def encoder_bias(self, positions: Int[Array, "#B S"]) -> Float[Array, "#B N S S"] | None:
        """The bias on the logits of the encoder's self-attention, the same in all layers."""
        return None

    def decoder_bias(
        self, queries: Int[Array, "#B T"], keys: Int[Array, "#B S"]
    ) -> Float[Array, "#B N T S"] | None:
        """The same for the decoder, from the positions of queries and keys."""
        return None

    def finish_encoder(self, x: Float[Array, "B R D"]) -> Float[Array, "B R D"]:
        """Applied after the encoder's last block."""
        return x

    def finish_decoder(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applied after the decoder's last block."""
        return x

    def logits(self, features: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Applies the output layer, in float32; by default the token table."""
        return jnp.asarray(self.token_embedding.attend(features), jnp.float32)

    def output_layer(self) -> tuple[Float[Array, "D V"], Float[Array, "V"] | None]:
        """Kernel and bias of the output layer, for losses that use it in chunks."""
        return self.token_embedding.embedding.T, None

    def output_table(self) -> Float[Array, "V D"] | None:
        """The table of tokens if it is the output layer, as it is here."""
        return self.token_embedding.embedding

    def chosen_attention(self, *inputs: Array) -> str:
        """The attention implementation that training uses for a source and a target so long.

        Without these, usual lengths are taken.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        strides = (self.source_stride, 1)
        lengths = [-(-x.shape[1] // stride) for x, stride in zip(inputs, strides, strict=False)]
        return self.compute.chosen_attention(
            self.num_heads,
            self.head_width(),
            max(lengths, default=None),
            # Batches mark padding by segments.
            mask=Mask(query_segments=True),
            **self.attention_needs(),
        )

    def attention_needs(self) -> dict[str, bool]:
        """Further features that attention must support; see `ops.attention.resolved`."""
        return {}

    def empty_cache(self, batch_size: int, length: int) -> Caches:
        """An empty cache with room for `length` tokens of `batch_size` targets."""
        heads = self.num_heads, self.head_width()
        text = KVCache.empty(batch_size, length, *heads, self.compute.dtype)
        return self.compute.caches(DecoderCache(text), self.num_decoder_layers)

    def head_width(self) -> int:
        """H."""
        return self.width // self.num_heads

    def begin_token(self) -> int | None:
        """The token that begins every target; None means the end token."""
        return self.begin_id

    def unwritten_tokens(self) -> tuple[int, ...]:
        """Tokens that no output may contain, however probable they are."""
        return ()

    def begun(
        self, target: Int[Array, "B T"], target_segments: Int[Array, "B T"] | None = None
    ) -> Int[Array, "B T"]:
        """Replaces the begin token of a batch's targets by the one of this model.

        Args:
            target: targets that begin with the end token, as batches have them.
            target_segments: the text that each token belongs to; None means one text per row.
        """
        begin = self.begin_token()
        if begin is None:
            return target
        is_first = jnp.arange(target.shape[1])[None, :] == 0
        if target_segments is not None:
            is_first |= target_segments != jnp.roll(target_segments, 1, axis=1)
        return jnp.where(is_first, begin, target)

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        self.compute.require_compilable(
            num_encoder_layers=self.num_encoder_layers,
            num_decoder_layers=self.num_decoder_layers,
        )
        self.chosen_attention()
        known = self.begin_id is not None and self.vocab_size is not None
        if known and self.begin_id >= self.vocab_size:
            raise ConfigError(
                f"config.model.begin_id is {self.begin_id}: it must be a token, below "
                f"config.model.vocab_size ({self.vocab_size})."
            )


class EncoderDecoder(AnyEncoderDecoder):
    """An encoder-decoder whose source and target are tokens of one vocabulary."""

    def read(
        self,
        source: Int[Array, "B S"],
        source_segments: Int[Array, "B S"] | None,
        positions: Int[Array, "B S"] | None,
    ) -> Float[Array, "B S D"]:
        """The input of the encoder's first block."""
        return self.read_tokens(source, positions)

    def read_tokens(
        self, source: Int[Array, "B S"], positions: Int[Array, "B S"] | None = None
    ) -> Float[Array, "B S D"]:
        """The vectors of the source's tokens; arguments as in `features`."""
        return self.embed(source, _places(source, positions), "encoder")


def _places(sequence: Array, positions: Int[Array, "B T"] | None) -> Array:
    return jnp.arange(sequence.shape[1])[None, :] if positions is None else positions


def with_room(caches: Caches, slots: int) -> Caches:
    """The caches with at least so many slots for the text; the new ones are empty."""
    if isinstance(caches, tuple):
        return tuple(cache.with_room(slots) for cache in caches)
    return caches.with_room(slots)


def num_slots(cache: Caches) -> int:
    """How many slots for the text there are in each of the caches of a stack, scanned or not."""
    first = cache[0] if isinstance(cache, tuple) else cache
    return first.text.key.shape[-2]
