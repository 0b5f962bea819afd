"""Cut over devices in any way, training computes the same."""

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import jax
import numpy as np
import pytest

from tests.parallel.meshes import ALL, SLICES, STEPS, TWO, VALIDATED
from tests.simulated import simulated_devices
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.sharding import AXES, Mesh, Rules, in_slices, rows_by_process

ROOT = Path(__file__).parents[2]
JOBS = [
    ("gpt", {}),
    ("gpt", {"data": 4}),
    ("gpt", {"fsdp": 4}),
    ("gpt", {"tensor": 4}),
    ("gpt", {"sequence": 4}),
    ("gpt", ALL),
    ("ring", {"sequence": 4}),
    ("gpt", SLICES),
    ("vaswani", {}),
    ("vaswani", TWO),
    ("vit", {}),
    ("vit", TWO),
    ("mixtral", {}),
    ("mixtral", {"expert": 2, "tensor": 2}),
]


def key(name, mesh):
    return " ".join([name, *(f"{axis}={size}" for axis, size in mesh.items())])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    command = [sys.executable, "-m", "tests.parallel.meshes", str(folder / "text.txt")]
    done = subprocess.run(
        [*command, json.dumps(JOBS)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=simulated_devices(8),
    )
    assert done.returncode == 0, done.stderr
    # The compiler says so where it has to bring a whole array together to cut it another way.
    assert "rematerialization" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("name", "mesh"), [job for job in JOBS if job[1]], ids=str)
def test_losses_are_those_of_one_device(found, name, mesh):
    """The largest difference seen was 2e-6."""
    losses = found[key(name, mesh)]["losses"]
    assert len(losses) == STEPS
    alone = found["gpt" if name == "ring" else name]["losses"]
    np.testing.assert_allclose(losses, alone, atol=1e-5)
    # A step that did nothing would be the same everywhere, too.
    assert losses[-1] < losses[0] or name == "vit"
    assert len(set(losses)) == STEPS


@pytest.mark.parametrize(("name", "mesh"), [job for job in JOBS if job[1] in VALIDATED], ids=str)
def test_validation_batches_need_not_divide(found, name, mesh):
    """They have 45 rows, and what counts is what counts on one device."""
    one, everywhere = found[name]["validation"]
    several = found[key(name, mesh)]["validation"] if mesh else everywhere
    assert one.keys() == several.keys() >= {"loss"}
    # An expert's capacity grows with the rows of a batch, and more or fewer tokens pass by.
    tolerance = 1e-3 if name == "mixtral" else 2e-5
    for metric, value in one.items():
        np.testing.assert_allclose(several[metric], value, rtol=tolerance, err_msg=metric)


@pytest.mark.parametrize(
    ("name", "mesh"), [("gpt", {"fsdp": 4}), ("gpt", ALL), ("ring", {"sequence": 4})], ids=str
)
def test_parameters_and_moments_lie_in_parts(found, name, mesh):
    parts = mesh.get("fsdp", 1) * mesh.get("tensor", 1) * mesh.get("sequence", 1)
    # Vectors that are not cut weigh little.
    assert found[key(name, mesh)]["fraction_here"] < 1.15 / parts


def test_layers_come_together_one_at_a_time(found):
    """Never a whole stack; that is what cutting parameters is for."""
    for mesh in ({"fsdp": 4}, ALL):
        job = found[key("gpt", mesh)]
        stacks = {tuple(shape) for shape in job["parameter_shapes"] if shape[0] == 2}
        assert len(stacks) > 5
        gathered = [tuple(shape) for shape in job["gathered"]]
        assert len(gathered) > 10
        assert not stacks & set(gathered)
        assert {shape[0] for shape in gathered if len(shape) > 2} == {1}


def test_devices_exchange_what_they_have_to(found):
    counts = {name: job["collectives"] for name, job in found.items()}
    assert not any(counts["gpt"].values())
    # Copies add up gradients, nothing else.
    assert counts["gpt data=4"]["all-reduce"] > 0
    assert counts["gpt data=4"]["all-gather"] == 0
    assert counts["gpt fsdp=4"]["all-gather"] > 10
    assert counts["gpt tensor=4"]["all-gather"] == 0
    assert counts["gpt tensor=4"]["all-reduce"] > 4
    # Keys and values of whole examples, 16 tokens of 4 heads, forward and perhaps again backward;
    # a ring passes them on.
    gathered = [shape[1:] for shape in found["gpt sequence=4"]["gathered"]]
    assert 2 <= gathered.count([16, 4, 8]) <= 4
    assert counts["gpt sequence=4"]["collective-permute"] == 0
    assert [16, 4, 8] not in [shape[1:] for shape in found["ring sequence=4"]["gathered"]]
    assert counts["ring sequence=4"]["collective-permute"] > 4


def test_each_device_makes_its_part_of_random_bits(found):
    program = found["random bits"]["program"]
    assert "u32[16,64]" in program
    assert "u32[64,64]" not in program
    assert not any(found["random bits"]["collectives"].values())


def test_no_mesh_axis_cuts_twice():
    with pytest.raises(ValueError, match="tensor more than once"):
        Rules().spec(("heads", "mlp"))
    with pytest.raises(ValueError, match="fsdp"):
        Rules().spec(("batch", "embed"))
    assert tuple(Rules().spec(("batch", None, "heads"))) == (
        ("data", "fsdp", "expert"),
        None,
        "tensor",
    )


@pytest.mark.parametrize("axis", AXES[1:])
def test_sizes_that_no_mesh_has(axis):
    with pytest.raises(ConfigError, match=f"mesh.{axis}"):
        require_allowed("mesh", Mesh(**{axis: 0}))


def test_meshes_that_do_not_fit_the_devices():
    with pytest.raises(ConfigError, match=r"there are 1: make their product 1"):
        Mesh(data=2, fsdp=2).make()


def chip(number=None, platform="tpu"):
    """A device of a slice; without a number it does not say of which."""
    known = {} if number is None else {"slice_index": number}
    return Mock(spec=jax.Device, platform=platform, device_kind="some chip", **known)


def test_devices_come_in_slices():
    chips = [chip(number) for number in (1, 0, 0, 1)]
    for count in (2, -1):
        slices = in_slices(chips, count)
        assert [[one.slice_index for one in slice_] for slice_ in slices] == [[0, 0], [1, 1]]
    # Simulated devices are in as many slices as one likes, GPUs of several machines in one.
    simulated = [chip(platform="cpu") for _ in range(6)]
    assert [len(slice_) for slice_ in in_slices(simulated, 3)] == [2, 2, 2]
    assert in_slices(simulated, 3)[2] == simulated[4:]
    assert len(in_slices(simulated, -1)) == 1
    assert len(in_slices([chip(number, "gpu") for number in (0, 1)], 1)) == 1


@pytest.mark.parametrize(
    ("chips", "count", "said"),
    [
        ([chip(0), chip(1)], 1, "form 2: give --config.mesh.slices=2"),
        ([chip(0), chip(0)], 2, "form 1: give --config.mesh.slices=1"),
        ([chip(0), chip(0), chip(1)], 2, "these have 1 and 2 devices"),
        ([chip(), chip()], 2, "some chip does not say of which slice"),
        ([chip(platform="cpu")] * 4, 3, "do not divide into 3 slices"),
    ],
)
def test_slices_that_there_are_not(chips, count, said):
    with pytest.raises(ConfigError, match=said):
        in_slices(chips, count)


@pytest.mark.parametrize(
    ("sizes", "processes", "expected"),
    [
        ({"data": 4}, [0, 0, 1, 1], {0: (0, 1), 1: (2, 3)}),
        ({"data": 2, "tensor": 2}, [0, 0, 1, 1], {0: (0,), 1: (1,)}),
        # A sequence lies on the devices of two processes, which hold the same rows.
        (
            {"data": 2, "sequence": 4},
            [0, 0, 1, 1, 2, 2, 3, 3],
            {0: (0,), 1: (0,), 2: (1,), 3: (1,)},
        ),
        # The hardware may order processes in another way.
        ({"fsdp": 4}, [0, 1, 0, 1], {0: (0, 2), 1: (1, 3)}),
        # Three devices of a sequence, two of a process: the second has a part of both examples.
        ({"data": 2, "sequence": 3}, [0, 0, 1, 1, 2, 2], None),
    ],
)
def test_processes_know_their_rows(sizes, processes, expected):
    shape = {axis: sizes.get(axis, 1) for axis in AXES}
    devices = np.empty(len(processes), object)
    devices[:] = [Mock(spec=jax.Device, process_index=process) for process in processes]
    grid = devices.reshape(tuple(shape.values()))
    mesh = Mock(spec=jax.sharding.Mesh, shape=shape, devices=grid)
    assert rows_by_process(mesh) == expected


def test_one_axis_takes_the_devices_left_over():
    mesh = Mesh(data=1, fsdp=-1)
    require_allowed("mesh", mesh)
    assert dict(mesh.make().shape) == dict.fromkeys(AXES, 1)
    with pytest.raises(ConfigError, match=r"mesh.data and config.mesh.fsdp are -1"):
        require_allowed("mesh", Mesh(fsdp=-1))
