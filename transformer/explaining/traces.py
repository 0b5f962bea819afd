"""What a trace holds: all activations of a model for one prompt, by name."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from transformer.errors import ConfigError
from transformer.explaining.names import Place, from_transformer_lens
from transformer.explaining.readings import Reading, Token
from transformer.runs.opening import Run


@dataclasses.dataclass(frozen=True)
class StackTrace:
    """The activations of one stack, float32; `explaining.names` lists them with their shapes.

    Attributes:
        name: `encoder` or `decoder`.
        path: the stack's name in the model.
        tokens: the tokens that it reads.
        layers: the activations of each layer, by name.
        whole: activations outside of layers, by name.
    """

    name: str
    path: str
    tokens: tuple[Token, ...]
    layers: tuple[Mapping[str, np.ndarray], ...]
    whole: Mapping[str, np.ndarray]

    def __getitem__(self, key: str | tuple[str, int]) -> np.ndarray:
        """An activation of one layer, or of all with a leading axis L; or one outside of layers.

        Raises:
            KeyError: if there is none.
        """
        if not isinstance(key, str):
            name, layer = key
            return self.layers[layer][name]
        if key in self.whole:
            return self.whole[key]
        return np.stack([layer[key] for layer in self.layers])


@dataclasses.dataclass(frozen=True)
class Trace:
    """A model's activations and outputs for one prompt.

    `trace["attention_weights"]` has the weights of all layers, `trace["attention_weights", 3]`
    those of one; `trace["blocks.3.attn.hook_pattern"]`, as in TransformerLens, is the same. They
    are of the last stack: `trace.stack("encoder")[...]` has those of an encoder below a decoder.

    Attributes:
        run: the run.
        reading: what the model read.
        stacks: the stacks, in the order of computation.
        outputs: float32. `[T, V]` scores of next tokens, `[c]` of classes, `[T, c]` of each token's
            classes, `[M, V]` of masked tokens, `[T, 2]` of first and last tokens of an answer,
            `[D]` of the text's vector.
        edits: sentences about what was changed in the model.
    """

    run: Run
    reading: Reading
    stacks: tuple[StackTrace, ...]
    outputs: Float[np.ndarray, "..."]
    edits: tuple[str, ...] = ()

    def stack(self, which: str | int = -1) -> StackTrace:
        """A stack by name or number.

        Raises:
            ConfigError: if there is no such stack.
        """
        names = [stack.name for stack in self.stacks]
        index = names.index(which) if which in names else which
        if not isinstance(index, int) or not -len(names) <= index < len(names):
            raise ConfigError(f"there is no stack {which!r}: choose from {', '.join(names)}.")
        return self.stacks[index]

    def __getitem__(self, key: str | tuple[str, int]) -> np.ndarray:
        """An activation by our name or by that of TransformerLens.

        Raises:
            ConfigError: if there is none, with the names that exist.
        """
        name, layer = (key, None) if isinstance(key, str) else key
        place = from_transformer_lens(name) or Place(None, layer, name)
        stack = self.stack(-1 if place.stack is None else place.stack)
        if place.layer is not None and not -len(stack.layers) <= place.layer < len(stack.layers):
            raise ConfigError(f"there is no layer {place.layer}: there are {len(stack.layers)}.")
        known = {*stack.layers[0], *stack.whole}
        if place.name not in known:
            raise ConfigError(
                f"there is no activation {place.name!r}: choose from {', '.join(sorted(known))}."
            )
        return stack[place.name if place.layer is None else (place.name, place.layer)]

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens of the last stack."""
        return self.stacks[-1].tokens

    @property
    def loss(self) -> float | None:
        """The mean loss of the prompt's next tokens, in nats; None without any."""
        if self.reading.output != "next_token" or len(self.tokens) < 2:
            return None
        loss = float(np.mean(next_token_losses(self)))
        return loss if math.isfinite(loss) else None


def next_token_losses(trace: Trace) -> Float[np.ndarray, " t"]:
    """The loss of each token after the first, in nats: -log of its probability.

    Of an encoder-decoder, these are the target's tokens.
    """
    logits = trace.outputs[:-1].astype(np.float64)
    ids = np.array([token.id for token in trace.tokens[1:]])
    largest = logits.max(-1)
    totals = largest + np.log(np.exp(logits - largest[:, None]).sum(-1))
    return totals - logits[np.arange(len(ids)), ids]
