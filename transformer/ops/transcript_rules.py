"""Which tokens may follow in a transcript, with times or without (Radford et al. 2023)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class TimestampRules:
    """The rules of the published code for tokens that stand for times.

    A transcript is segments: the time of the beginning, text, the time of the end. Times never
    fall. Together, all times may be more probable than any text: then the next token is a time.

    Attributes:
        end: the token that ends a transcript; all tokens below it are text.
        no_times: the token that says that there are no times; never written.
        latest_first: the largest first time, in steps of 0.02 seconds; None allows all.
    """

    end: int
    no_times: int
    latest_first: int | None = 50

    @property
    def first_time(self) -> int:
        """The token of 0.00 seconds; all from there on are times."""
        return self.no_times + 1

    def __call__(
        self, scores: Float[Array, "*B V"], recent: Int[Array, "*B 3"], step: Int[Array, ""]
    ) -> Float[Array, "*B V"]:
        """Scores of next tokens, -inf for those that may not follow.

        Args:
            scores: logits or log probabilities, after all other rules.
            recent: of each text, what `remembered` holds.
            step: how many tokens of each text are written.
        """
        tokens = jnp.arange(scores.shape[-1])
        is_time = tokens >= self.first_time
        last, before, latest = (recent[..., place, None] for place in range(3))
        after_time = last >= self.first_time
        # Two times in a row end one segment and begin the next; a text follows.
        after_two = after_time & ((before >= self.first_time) | (step < 2))
        after_one = after_time & ~after_two
        # A segment may begin when the last one ended, but not end when it began.
        least = jnp.where(latest >= self.first_time, latest + jnp.where(after_one, 0, 1), 0)
        forbidden = (tokens == self.no_times) | (after_two & is_time)
        forbidden |= (after_one & (tokens < self.end)) | (is_time & (tokens < least))
        beyond = jnp.zeros_like(is_time)
        if self.latest_first is not None:
            beyond = tokens > self.first_time + self.latest_first
        forbidden |= (step == 0) & (~is_time | beyond)
        scores = jnp.where(forbidden, -jnp.inf, scores)
        times = jax.nn.logsumexp(scores[..., self.first_time :], axis=-1, keepdims=True)
        best_text = jnp.max(scores[..., : self.first_time], axis=-1, keepdims=True)
        return jnp.where((times > best_text) & ~is_time, -jnp.inf, scores)

    def remembered(self, recent: Int[Array, "*B 3"], token: Int[Array, "*B"]) -> Int[Array, "*B 3"]:
        """What the rules need of texts that grow by a token: the last two, and the last time.

        All three are -1 where there is none; that is what a text begins with.
        """
        latest = jnp.where(token >= self.first_time, token, recent[..., 2])
        return jnp.stack([token, recent[..., 0], latest], axis=-1)


@dataclasses.dataclass(frozen=True)
class TranscriptRules:
    """All rules of a transcript.

    Attributes:
        suppressed: tokens that are never written.
        suppressed_first: tokens that no transcript begins with.
        times: the rules of times; None if there are none to be written.
    """

    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    times: TimestampRules | None = None

    def __call__(
        self, scores: Float[Array, "*B V"], recent: Int[Array, "*B 3"], step: Int[Array, ""]
    ) -> Float[Array, "*B V"]:
        """Scores of next tokens; arguments as in `TimestampRules`."""
        size = scores.shape[-1]
        for tokens, applies in ((self.suppressed, True), (self.suppressed_first, step == 0)):
            if tokens:
                is_one = np.isin(np.arange(size), tokens)
                scores = jnp.where(jnp.asarray(is_one) & applies, -jnp.inf, scores)
        return scores if self.times is None else self.times(scores, recent, step)

    def remembered(self, recent: Int[Array, "*B 3"], token: Int[Array, "*B"]) -> Int[Array, "*B 3"]:
        """See `TimestampRules.remembered`."""
        return recent if self.times is None else self.times.remembered(recent, token)

    def of_texts(
        self, scores: Float[Array, "*B V"], texts: Int[Array, "*B L"], step: Int[Array, ""]
    ) -> Float[Array, "*B V"]:
        """The same from whole texts, of which the first `step` tokens are written."""
        recent = jnp.full((*texts.shape[:-1], 3), -1)
        if self.times is not None:
            written = jnp.where(jnp.arange(texts.shape[-1]) < step, texts, -1)
            ends = (jnp.take(written, step - back, axis=-1, mode="clip") for back in (1, 2))
            last, before = (
                jnp.where(step >= back, end, -1) for back, end in zip((1, 2), ends, strict=True)
            )
            # Times never fall, so the largest is the last.
            latest = jnp.max(written, axis=-1)
            latest = jnp.where(latest >= self.times.first_time, latest, -1)
            recent = jnp.stack([last, before, latest], axis=-1)
        return self(scores, recent, step)
