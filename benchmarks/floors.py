"""How long a program takes at least: for the products it computes and the bytes it reads.

A floor is the longer of two times: that of all matrix products, at the speed of a large product,
and that of reading all numbers once, at the speed of a matrix of as many that meets one vector.
"""

import dataclasses
from collections.abc import Mapping

import peaks


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a unit of work needs at least.

    Attributes:
        flops: two for each multiplication of its matrix products.
        read: bytes of weights and caches that a pass reads, each array once; 0 if products decide.
        passes: how often they are read.
    """

    flops: float
    read: float = 0.0
    passes: float = 1.0


def training_needs(task, model, params, batch: Mapping, hidden: float = 0.0) -> Needs:
    """A training step: forward and backward pass, nothing computed twice.

    Args:
        task: whose loss is computed.
        model: on which it is computed.
        params: the parameters of the model.
        batch: arrays of one step, or their shapes.
        hidden: FLOPs of a forward pass that a mask makes superfluous; see `hidden_flops`.
    """
    import jax

    from transformer.nn.compute import computing
    from transformer.training.flops import count_flops

    plain = computing(model, attention="einsum", remat="none", vocab_multiple=1)

    def objective(params, batch):
        return task.losses(plain, params, batch, {}).objective

    return Needs(count_flops(jax.grad(objective), params, batch) - 3 * hidden)


def hidden_flops(rows: int, length: int, width: int, num_layers: int) -> float:
    """FLOPs of the pairs that a causal mask hides: scores and sums of values, forward."""
    return 4 * rows * (length * (length - 1) // 2) * width * num_layers


def print_floors(results: Mapping[str, dict], speed: float) -> None:
    """Prints the floor of each program that says what it needs, and adds it as `floor`, in seconds.

    Args:
        results: by program; those with `needs` have a floor.
        speed: FLOP/s of a large product; 0 if unknown, and then there are no floors.
    """
    for name, result in results.items():
        if speed and result.get("needs"):
            needs = Needs(**result["needs"])
            floor, parts = needs.flops / speed, [f"{needs.flops / 1e9:,.3g} GFLOP"]
            if needs.read:
                reading = needs.passes * needs.read / peaks.reading_speed(int(needs.read))
                floor = max(floor, reading)
                parts.append(f"{needs.read / 1e6:,.3g} MB to read {needs.passes:.3g} times")
            result["floor"] = floor
            print(
                f"{name}: {' and '.join(parts)}, at least {floor * 1e3:.3g} ms; "
                f"it takes {result['seconds'] / floor:.2f} times that"
            )
