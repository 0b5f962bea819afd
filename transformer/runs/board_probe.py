"""Reads the board out of a model that has only seen moves, by linear probes on its taps."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer.data.games.othello import LONGEST, boards_of
from transformer.data.games.othello_games import OthelloGames
from transformer.data.source import Visit
from transformer.nn.layouts import STACKED, layer_name
from transformer.nn.taps import RECORDED
from transformer.progress import counting
from transformer.runs.opening import Run
from transformer.scoring.probing import fit_linear_probe
from transformer.tasks.parts.models import Model
from transformer.training.experiment import initial_parameters
from transformer.training.lora import LoRA
from transformer.types import Params

# The classes of a square: empty, of the player to move, of the other.
_CLASSES = 3
_AT_ONCE = 50


class BoardProbe(NamedTuple):
    """How much of the board linear probes read, as shares of right squares in held-out games.

    Attributes:
        trained: `[L + 1]`, before the first layer and after each.
        untrained: the same of the network before its training.
        by_move: `[59]`, of the best layer of the trained network after each move.
        untrained_by_move: the same of the untrained network's best layer.
        constant: what the most frequent class of each square after each move is right about.
        constant_by_move: `[59]`, the same after each move.
    """

    trained: Float[np.ndarray, " layers"]
    untrained: Float[np.ndarray, " layers"]
    by_move: Float[np.ndarray, " moves"]
    untrained_by_move: Float[np.ndarray, " moves"]
    constant: float
    constant_by_move: Float[np.ndarray, " moves"]


def probe_board(run: Run, num_games: int, seed: int) -> BoardProbe:
    """Fits probes on random games and judges them on others.

    A board is seen with the eyes of the player to move, as a model of both players' moves keeps it
    (Nanda et al. 2023).

    Args:
        run: an open run of the task `othello_moves`.
        num_games: how many games to fit on; a quarter as many judge.
        seed: the seed of the games and of the untrained network.
    """
    visits = [Visit(number, seed) for number in range(num_games + num_games // 4)]
    moves, _ = OthelloGames(len(visits), held_out=True).games(visits)
    # Behind the last square nothing is read any more.
    moves = moves[:, :-1]
    labels, in_play = boards_of(moves), moves >= 0
    key = jax.random.key(seed)
    boxed = jax.jit(lambda key: initial_parameters(run.model, run.task, LoRA(), key))(key)
    fresh = nn.meta.unbox(boxed)
    found = {}
    for name, params in (("trained", run.params), ("untrained", fresh)):
        states = residual_streams(run.model, params, moves)
        found[name] = np.stack([_right(state, labels, in_play, num_games) for state in states])
    shares = {name: _mean(right, in_play[num_games:]) for name, right in found.items()}
    moves_of = {
        name: _by_move(right[shares[name].argmax()], in_play[num_games:])
        for name, right in found.items()
    }
    constant = _constant(labels, in_play, num_games)
    return BoardProbe(
        shares["trained"],
        shares["untrained"],
        moves_of["trained"],
        moves_of["untrained"],
        float(_mean(constant[None], in_play[num_games:])[0]),
        _by_move(constant, in_play[num_games:]),
    )


def residual_streams(
    model: Model, params: Params, moves: Int[np.ndarray, "n t"]
) -> Float[np.ndarray, "layers n t D"]:
    """The residual stream at each of 59 moves: before the first layer, and after each."""
    tokens = np.zeros((len(moves), LONGEST), np.int32)
    tokens[:, 1:] = moves + 1
    parts = []
    with counting(len(moves), "read", "games") as update:
        for first in range(0, len(moves), _AT_ONCE):
            part = tokens[first : first + _AT_ONCE]
            rows = np.zeros((_AT_ONCE, LONGEST), np.int32)
            rows[: len(part)] = part
            parts.append(np.asarray(_streams(model, params, rows))[:, : len(part), 1:])
            update(first + len(part))
    return np.concatenate(parts, axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _streams(model: Model, params: Params, tokens: Array) -> Float[Array, "layers B T D"]:
    _, found = model.apply({"params": params}, tokens, mutable=[RECORDED])
    blocks = found[RECORDED]["blocks"]
    if STACKED in blocks:
        layers = blocks[STACKED]
        before, after = layers["residual_before"][:1], layers["residual_after"]
        return jnp.concatenate([before, after])
    layers = [blocks[layer_name(number)] for number in range(len(blocks))]
    states = [layers[0]["residual_before"], *(layer["residual_after"] for layer in layers)]
    return jnp.stack(states)


def _right(
    state: Float[np.ndarray, "n t D"],
    labels: Int[np.ndarray, "n t S"],
    in_play: Bool[np.ndarray, "n t"],
    num_games: int,
) -> Bool[np.ndarray, "m t S"]:
    """Which squares a probe of one layer reads right, in the games behind the first ones."""
    fitted = in_play[:num_games]
    probe = fit_linear_probe(state[:num_games][fitted], labels[:num_games][fitted], _CLASSES)
    tested = state[num_games:]
    classes = probe.classes(tested.reshape(-1, tested.shape[-1]))
    return classes.reshape(labels[num_games:].shape) == labels[num_games:]


def _constant(
    labels: Int[np.ndarray, "n t S"], in_play: Bool[np.ndarray, "n t"], num_games: int
) -> Bool[np.ndarray, "m t S"]:
    """Which squares are in the most frequent class of that square after that move."""
    fitted = in_play[:num_games, :, None]
    counts = np.stack([((labels[:num_games] == c) & fitted).sum(0) for c in range(_CLASSES)])
    return counts.argmax(0)[None] == labels[num_games:]


def _mean(
    right: Bool[np.ndarray, "layers m t S"], in_play: Bool[np.ndarray, "m t"]
) -> Float[np.ndarray, " layers"]:
    """The share over games, moves and squares."""
    return (right.mean(-1) * in_play).sum((-1, -2)) / in_play.sum()


def _by_move(
    right: Bool[np.ndarray, "m t S"], in_play: Bool[np.ndarray, "m t"]
) -> Float[np.ndarray, " t"]:
    """The share over games and squares."""
    return (right.mean(-1) * in_play).sum(0) / np.maximum(in_play.sum(0), 1)
