"""Key-to-Door: three rooms, of which the first decides what the last is worth.

An agent walks through a room with a key, an empty room and a room with a door, for a fixed number
of moves in each. Reaching the door pays 1 if the key was taken, else nothing. So the reward comes
long after the moves that earned it (Mesnard et al. 2021, "Counterfactual credit assignment in
model-free reinforcement learning"; Chen et al. 2021, "Decision Transformer", section 5.4). Where
the papers leave the rooms open, these are ours.
"""

import dataclasses
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer.data.source import epoch_generator
from transformer.limits import Whole

# Moves: up, down, left, right, as changes of row and of column.
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]], np.int32)
# What an agent sees: the room, its own square, and the square of the key or door.
FEATURES = 3
_WITH_KEY, _WITH_DOOR, _NUM_ROOMS = 0, 2, 3
# Random numbers that place one episode: in each room the agent, then the key and the door.
PLACED = _NUM_ROOMS + 2
# The number of a move.
Turn = int | Int[np.ndarray, "..."] | Int[Array, "..."]


class Places(NamedTuple):
    """Where B episodes put things, as squares; arrays of NumPy or of JAX.

    Attributes:
        entrances: `[B, 3]`, where the agent enters each room.
        key: `[B]`, never where the agent enters the first room.
        door: `[B]`, never where it enters the last.
    """

    entrances: Int[np.ndarray, "B 3"] | Int[Array, "B 3"]
    key: Int[np.ndarray, "B"] | Int[Array, "B"]
    door: Int[np.ndarray, "B"] | Int[Array, "B"]


class Walk(NamedTuple):
    """B agents on their way.

    Attributes:
        square: `[B]`, where they are.
        has_key: `[B]`, whether they have taken the key.
        over: `[B]`, whether they have been paid.
    """

    square: Int[np.ndarray, "B"] | Int[Array, "B"]
    has_key: Bool[np.ndarray, "B"] | Bool[Array, "B"]
    over: Bool[np.ndarray, "B"] | Bool[Array, "B"]


class Trajectories(NamedTuple):
    """B episodes of T moves.

    Attributes:
        observations: `[B, T, 3]`, before each move.
        actions: `[B, T]`, the moves.
        rewards: `[B, T]`, 1 for the move that reached the door with the key.
        in_play: `[B, T]`, whether the reward was still to come or to be missed.
    """

    observations: Int[np.ndarray, "B T O"]
    actions: Int[np.ndarray, "B T"]
    rewards: Float[np.ndarray, "B T"]
    in_play: Bool[np.ndarray, "B T"]

    def returns(self) -> Float[np.ndarray, "B T"]:
        """The sum of this reward and all later ones."""
        return self.rewards[:, ::-1].cumsum(-1)[:, ::-1]


class Episodes(NamedTuple):
    """B episodes that an agent has walked.

    Attributes:
        places: where things were.
        squares: `[B, T]`, where each move led, before the agent entered another room.
        paid: `[B]`, whether it reached the door with the key.
    """

    places: Places
    squares: Int[np.ndarray, "B T"]
    paid: Bool[np.ndarray, "B"]


@dataclasses.dataclass(frozen=True)
class Rooms:
    """The rules; the fields are `config.task.rooms`. Methods take arrays of NumPy or of JAX.

    Attributes:
        side: the number of squares on a side of each room.
        moves: how many moves the agent makes in the first and in the last room.
        distraction: how many in the empty room between them.
        layouts: how many ways to place things there are; 0 places them anew in every episode.
        layout_seed: the seed of these ways.
    """

    side: Annotated[int, Whole(2, 32)] = 5
    moves: Annotated[int, Whole(1, 256)] = 8
    distraction: Annotated[int, Whole(1, 256)] = 8
    layouts: Annotated[int, Whole(0, 1 << 16)] = 1
    layout_seed: Annotated[int, Whole(0)] = 0

    @property
    def length(self) -> int:
        """T, the moves of an episode."""
        return 2 * self.moves + self.distraction

    @property
    def num_values(self) -> int:
        """How many values a feature has: the squares, and none."""
        return self.side**2 + 1

    def room(self, turn: Turn) -> Turn:
        """The room of a move, or of several: 0, 1 or 2."""
        return 1 * (turn >= self.moves) + 1 * (turn >= self.moves + self.distraction)

    def places(self, numbers: Float[np.ndarray, "B 5"] | Float[Array, "B 5"]) -> Places:
        """Places what is in the rooms, by numbers from 0 to 1."""
        if self.layouts:
            xp, random = numbers.__array_namespace__(), epoch_generator(self.layout_seed, 0)
            known = random.random((self.layouts, PLACED), np.float32)
            numbers = xp.asarray(known)[(numbers[:, 0] * self.layouts).astype(np.int32)]
        count = self.side**2
        entrances = (numbers[:, :_NUM_ROOMS] * count).astype(np.int32)
        # One of the other squares, each equally probable.
        steps = 1 + (numbers[:, _NUM_ROOMS:] * (count - 1)).astype(np.int32)
        key = (entrances[:, _WITH_KEY] + steps[:, 0]) % count
        door = (entrances[:, _WITH_DOOR] + steps[:, 1]) % count
        return Places(entrances, key, door)

    def enter(self, places: Places) -> Walk:
        """The beginning of episodes."""
        square = places.entrances[:, 0]
        return Walk(square, square < 0, square < 0)

    def observe(
        self, places: Places, walk: Walk, turn: Turn
    ) -> Int[np.ndarray, "B 3"] | Int[Array, "B 3"]:
        """What agents see: the room, their square, and the key or door, if one is there.

        Nothing shows whether an agent has the key once it has left the first room.
        """
        xp = walk.square.__array_namespace__()
        room, nothing = self.room(turn), self.side**2
        key = xp.where(walk.has_key, nothing, places.key)
        seen = xp.where(room == _WITH_KEY, key, nothing)
        seen = xp.where(room == _WITH_DOOR, places.door, seen)
        return xp.stack([xp.full_like(seen, 0) + room, walk.square, seen], axis=-1)

    def walk(
        self,
        places: Places,
        walk: Walk,
        turn: Turn,
        actions: Int[np.ndarray, "B"] | Int[Array, "B"],
    ) -> tuple[Walk, Bool[np.ndarray, "B"] | Bool[Array, "B"]]:
        """The agents after a move, and which of them are paid for it.

        A wall stops an agent. After the last move in a room it enters the next one.
        """
        xp = walk.square.__array_namespace__()
        square, room = self.reached(walk.square, actions), self.room(turn)
        has_key = walk.has_key | ((room == _WITH_KEY) & (square == places.key))
        paid = (room == _WITH_DOOR) & (square == places.door) & has_key & ~walk.over
        following = self.room(turn + 1)
        entered = xp.take(places.entrances, following, axis=1)
        square = xp.where(following == room, square, entered)
        return Walk(square, has_key, walk.over | paid), paid

    def reached(
        self,
        square: Int[np.ndarray, "B"] | Int[Array, "B"],
        actions: Int[np.ndarray, "B"] | Int[Array, "B"],
    ) -> Int[np.ndarray, "B"] | Int[Array, "B"]:
        """The squares of a room to which moves lead."""
        xp = square.__array_namespace__()
        change = xp.asarray(MOVES)[actions]
        row = xp.clip(square // self.side + change[:, 0], 0, self.side - 1)
        column = xp.clip(square % self.side + change[:, 1], 0, self.side - 1)
        return row * self.side + column

    def random_episodes(self, count: int, seed: int) -> Trajectories:
        """Episodes of agents for whom all moves are equally probable."""
        random = epoch_generator(seed, 0)
        places = self.places(random.random((count, PLACED)))
        actions = random.integers(0, len(MOVES), (count, self.length), np.int32)
        walk, seen, rewards, in_play = self.enter(places), [], [], []
        for turn in range(self.length):
            seen.append(self.observe(places, walk, turn))
            in_play.append(~walk.over)
            walk, paid = self.walk(places, walk, turn, actions[:, turn])
            rewards.append(paid.astype(np.float32))
        arrays = (np.stack(values, axis=1) for values in (seen, rewards, in_play))
        observations, rewards, in_play = arrays
        return Trajectories(observations.astype(np.int32), actions, rewards, in_play)
