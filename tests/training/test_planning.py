"""Plans: figures against shapes, budgets, refusals, and the search."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from transformer.errors import ConfigError, MissingDependencyError
from transformer.planning import plan as planning
from transformer.planning.collectives import collectives
from transformer.planning.plan import (
    Wishes,
    duration,
    needed_memory,
    parse_mfu,
    parse_tokens,
    verdict,
)
from transformer.planning.search import Cut, cuts, estimate, rank
from transformer.training import accelerators
from transformer.training.absent_gpus import ABSENT_GPUS
from transformer.training.accelerators import Accelerator, Target, find_target

ROOT = Path(__file__).parents[2]
CONFIG = """
from ml_collections import ConfigDict
from transformer.training.sections import section


def get_config():
    config = ConfigDict()
    config.model = section(
        "model", "gpt", vocab_size=64, num_layers=2, num_heads=4, width=32, context=32,
        compute={"scan_layers": True},
    )
    config.task = section("task", "language_modeling", context=32, batch_size=16)
    config.optimizer, config.train = section("optimizer"), section("train")
    config.mesh = section("mesh", data=2, fsdp=-1)
    return config
"""
# What libtpu 0.0.42 said.
TOO_LARGE = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(600.00G) exceeds available HBM (15.75G)."
)
EXCEEDED = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 20.80G of 15.75G hbm. Exceeded hbm capacity by 5.05G."
)
# Shapes and layouts as the compilers for CPUs and for TPUs write them.
PROGRAM = """HloModule jit_steps, entry_computation_layout={()->f32[]}

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %c = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p: f32[8,16]) -> f32[2,16] {
  %r = f32[8,16]{1,0:T(8,128)} all-reduce(%p), replica_groups=mesh['x'=2,'y'=4] {'y'}, to_apply=%sum
  ROOT %s = f32[2,16]{1,0} dynamic-slice(%r), dynamic_slice_sizes={2,16}
}

%goes_on (p: bf16[1]) -> bf16[8] {
  ROOT %h.1 = bf16[8]{0} all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], dimensions={0}
}

%layers (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %g = (bf16[2,16]{1,0}, bf16[8,16]{1,0}) all-gather-start(%x), replica_groups=[2,4]<=[8]
  %d = bf16[8,16]{1,0} all-gather-done(%g)
  %h = bf16[8]{0} all-gather(%x), channel_id=7, replica_groups=[1,8]<=[8], dimensions={0}
  %k = bf16[8]{0} fusion(%h), kind=kCustom, calls=%goes_on
  ROOT %f = f32[2,16]{1,0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
}

%fewer (p: (s32[], f32[8,16])) -> pred[] {
  %limit.2 = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit.2), direction=LT
}

%steps (p: (s32[])) -> (s32[]) {
  %w = (s32[], f32[8,16]) while(%t), condition=%fewer, body=%layers
  %v = (s32[], f32[8,16]) while(%t), body=%noted, condition=%more, backend_config={BACKEND}
}

%noted (p: (s32[])) -> (s32[]) {
  %p.1 = f32[10]{0} collective-permute(%t), source_target_pairs={{0,1},{1,0}}
}

%more (p: (s32[])) -> pred[] {
  ROOT %lt.1 = pred[] compare(%i, %count), direction=LT
}

ENTRY %main (p: s32[]) -> f32[] {
  %o = (s32[]) while(%t), condition=%more, body=%steps
  %a = (f32[4]{0}, f32[]) all-reduce(%m, %n), replica_groups={{0,1},{2,3}}, to_apply=%sum
}
""".replace("{BACKEND}", '{"known_trip_count":{"n":"5"}}')


@pytest.fixture
def chips():
    return Target("v5e:2x2", jax.devices()[:1] * 4, 4, Accelerator(1e12, 1e9), 16 << 30)


def run(folder, *flags, **environment):
    path = folder / "tiny.py"
    path.write_text(CONFIG, "utf-8")
    return subprocess.run(
        [sys.executable, "scripts/plan.py", f"--config={path}", *flags],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), **environment},
    )


def test_a_plan_agrees_with_the_shapes(tmp_path):
    done = run(tmp_path, "--topology=cpu:8", "--tokens=1M", "--json", "--search", "--most=2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    meshes = [plan["mesh"] for plan in found["ranked"]]
    assert sorted(mesh["fsdp"] for mesh in meshes) == [1, 2]
    copies, cut = sorted(found["ranked"], key=lambda plan: plan["mesh"]["fsdp"])
    # Copies add up their gradients; parts of parameters come together, too.
    assert copies["collectives"].keys() == {"all-reduce"}
    assert "all-gather" in cut["collectives"]
    assert all(exchange["bytes"] > 0 for exchange in cut["collectives"].values())
    # Without a peak: what computes least and exchanges least comes first.
    assert found["ranked"][0] == min(found["ranked"], key=lambda plan: plan["received"])
    assert found["untried"] == len(list(cuts(8))) - 2
    assert not found["refused"]

    assert copies["memory"]["parameters"] == 4 * copies["parameters"]
    sizes = {row["path"]: row for row in cut["parameter_table"]}
    table = sizes["token_embedding/embedding"]
    assert (table["shape"], table["cut"]) == ([64, 32], [[], ["fsdp"]])
    assert table["bytes_per_device"] == 4 * 64 * 32 // 2
    whole = sum(4 * row["count"] for row in sizes.values() if not any(row["cut"]))
    parts = sum(4 * row["count"] // 2 for row in sizes.values() if any(row["cut"]))
    assert whole + parts == cut["memory"]["parameters"]
    for plan in (copies, cut):
        memory = plan["memory"]
        # Two counters of steps beside two moments.
        assert memory["optimizer"] == 2 * memory["parameters"] + 2 * 4
        assert memory["batch"] == 2 * 4 * 16 // 8 * 32
        state = memory["parameters"] + memory["optimizer"] + memory["batch"]
        # The step, a key and the count beside them.
        assert state < memory["arguments"] < state + 64
        assert memory["total"] > memory["arguments"] + memory["temporary"] // 2
        assert plan["flops_per_step"] == plan["computed_flops_per_step"]
        assert plan["tokens_per_step"] == 16 * 32
        assert plan["steps"] == -(-1_000_000 // (16 * 32))
        assert plan["compile_seconds"] > 0
        assert plan["fits"]
        assert plan["memory"]["available"] is None


def test_mistakes_have_one_clear_message(tmp_path):
    done = run(tmp_path, "--topology=cpu:8", "--config.mesh.fsdp=3")
    assert done.returncode == 2
    assert "there are 8: make their product 8" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("v9:2x2", "v5e", "v5p:4x4", "cpu", "cpu:2x2", "V5E:2x2", "h100:2x2", "gpu:8", ""),
        *("2xcpu:4", "2xh100:8", "0xv5e:2x2", "9999xv5e:2x2"),
    ],
)
def test_an_unknown_topology_lists_those_there_are(name):
    with pytest.raises(ConfigError) as caught:
        find_target(name)
    for known in ("cpu:N", "gpu", "h100:N", "l4:N", *accelerators.GENERATIONS.values()):
        assert known in str(caught.value)


def test_without_the_compiler_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"\[plan\]"):
        find_target("v5e:2x2")
    with pytest.raises(MissingDependencyError, match=r"compiling for h100:8.*\[plan-gpu\]"):
        find_target("h100:8")


def test_every_gpu_that_can_be_planned_for_has_a_known_speed():
    for kind, gpu in ABSENT_GPUS.items():
        known = accelerators.accelerator_of(gpu.device_kind)
        assert known is accelerators.ACCELERATORS[f"NVIDIA {kind.upper()}"]
        # Float32 outside of matrix units: two operations a clock; far below bfloat16 in them.
        plain = 2 * gpu.cores * gpu.units * gpu.clock * 1e9
        assert plain < known.peak_flops / 3
        assert gpu.usable < gpu.memory
        text = gpu.description()
        assert text.count("{") == text.count("}")
        assert f"core_count: {gpu.cores}" in text


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None,
    reason="the compiler for GPUs is not installed",
)
def test_a_plan_for_gpus_that_are_not_here(tmp_path):
    done = run(tmp_path, "--topology=h100:4", "--json", XLA_FLAGS="")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["chips"], plan["mesh"]) == (4, {"data": 2, "fsdp": 2})
    assert 0 < plan["memory"]["total"] < plan["memory"]["available"]


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the compiler for TPUs is not installed"
)
def test_a_plan_for_tpus_that_are_not_here(tmp_path):
    # The compiler for TPUs ends at flags that it does not know.
    two = ("--topology=2xv5e:2x2", "--config.mesh.slices=2")
    done = run(tmp_path, *two, "--json", "--price=1", XLA_FLAGS="")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["device_kind"], plan["chips"], plan["slices"]) == ("TPU v5 lite", 8, 2)
    # Two copies in each slice.
    assert plan["mesh"] == {"data": 4, "fsdp": 2}
    assert 0 < plan["memory"]["total"] < plan["memory"]["available"]
    assert plan["cost"] == plan["chip_hours"]
    unknown = run(tmp_path, "--topology=v5e:3x3", XLA_FLAGS="")
    assert unknown.returncode == 2
    assert "v5e:2x2" in unknown.stderr
    forgotten = run(tmp_path, "--topology=2xv5e:2x2", XLA_FLAGS="")
    assert forgotten.returncode == 2
    assert "give --config.mesh.slices=2" in forgotten.stderr


@pytest.mark.parametrize(
    ("text", "number"),
    [("1T", 1e12), ("300B", 3e11), ("1.5e12", 1.5e12), ("2.5G", 2.5e9), ("7M", 7e6), ("512", 512)],
)
def test_budgets_of_tokens(text, number):
    assert parse_tokens(text) == number


@pytest.mark.parametrize("text", ["", "1X", "T", "-1T", "0", "1 000", "nan", "inf", "1e999"])
def test_what_is_no_budget(text):
    with pytest.raises(ConfigError, match="1T, 300B or"):
        parse_tokens(text)


def test_expected_utilisation():
    assert parse_mfu(["0.5", "0.3"]) == (0.3, 0.5)
    assert parse_mfu(["0.4"]) == (0.4, 0.4)
    for wrong in (["0"], ["1.1"], ["a"], [], ["0.1", "0.2", "0.3"], ["nan"]):
        with pytest.raises(ConfigError, match="--mfu"):
            parse_mfu(wrong)


def test_time_and_cost(chips):
    # 4 chips of 1e12 FLOP/s at half of that: 2e12 a second.
    found = duration(int(2e12), 1000.0, 7200, chips, Wishes(mfu=(0.25, 0.5), price=2.0))
    assert found["step_seconds"] == [1.0, 2.0]
    assert found["tokens_per_second"] == [1000.0, 500.0]
    assert found["days"] == [7200 / 86_400, 14_400 / 86_400]
    assert found["chip_hours"] == [8.0, 16.0]
    assert found["cost"] == [16.0, 32.0]
    assert "cost" not in duration(1, 1.0, 1, chips, Wishes())
    assert duration(1, 1.0, 1, Target("cpu:1", jax.devices()[:1], 1, None, None), Wishes()) == {}


def test_a_refusal_for_want_of_memory_is_understood():
    assert needed_memory(TOO_LARGE) == (600 << 30, round(15.75 * 2**30))
    assert needed_memory(EXCEEDED) == (round(20.8 * 2**30), round(15.75 * 2**30))
    assert needed_memory("INTERNAL: Mosaic failed to compile") is None
    memory = {"available": round(15.75 * 2**30)}
    shown = verdict({"fits": False, "needs": round(20.8 * 2**30), "memory": memory})
    assert shown == "does not fit: needs 20.80 GiB of 15.75 GiB a device"
    memory["total"] = 10 << 30
    assert verdict({"fits": True, "memory": memory}).endswith("5.75 GiB left")


def test_a_plan_in_words(capsys):
    gib, row = 1 << 30, {"path": "a/b", "shape": [8, 6], "cut": [["fsdp"], []]}
    report = {
        "parameter_table": [row | {"bytes_per_device": 3 << 19}],
        "mesh": {"fsdp": 4, "tensor": 2},
        "slices": 2,
        "devices": 8,
        "chips": 16,
        "device_kind": "TPU v4",
        "parameters": 1_234_567,
        "memory": {"parameters": gib // 2, "total": 3 * gib, "available": None},
        "fits": True,
        "flops_per_step": 2e12,
        "computed_flops_per_step": 2.5e12,
        "collectives": {"all-gather": {"count": 1200, "bytes": 5 << 20, "moved": 4 << 20}},
        "tokens_per_step": 4096.0,
        "steps": 2000,
        "mfu": [0.25, 0.5],
        "step_seconds": [1.0, 2.0],
        "tokens_per_second": [4096.0, 2048.0],
        "days": [0.5, 1.0],
        "chip_hours": [96.0, 96.0],
        "cost": [192.0, 192.0],
        "compile_seconds": 3.4,
        "compile_cpu_seconds": 5.6,
    }
    planning.show(report)
    shown = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert shown >= {
        "devices 8 of 16 chips in 2 slices (TPU v4)",
        "mesh fsdp 4 x tensor 2",
        "parameters 1,234,567",
        "GiB a device, parameters 0.500",
        "GiB a device, total 3.000",
        "memory needs 3.00 GiB a device; no limit is known",
        "FLOPs a step 2e+12, 2.5e+12 with recomputation",
        "a step, all-gather 1,200: 5.0 MiB, 4.0 received",
        "tokens a step 4,096",
        "seconds a step 1 to 2",
        "tokens a second 4,096 to 2,048",
        "days 0.5 to 1",
        "chip-hours 96",
        "cost 192",
        "compiled in 3 s, 6 s of CPU",
        "│ a/b │ 8/fsdp x 6 │ 1.50 │",
    }
    report |= {"fits": False, "needs": 9 * gib, "mesh": {}, "slices": 1}
    report["memory"] = {"available": 8 * gib}
    planning.show(report)
    refused = capsys.readouterr().out
    assert "one device\n" in refused
    assert "8 of 16 chips (TPU v4)\n" in refused
    assert "does not fit: needs 9.00 GiB of 8.00 GiB a device\n" in refused
    assert "refused in" in refused


def test_exchanges_are_counted_as_often_as_loops_run():
    found = collectives(PROGRAM)
    # Three layers, each gathers 8 x 16 of 2 bytes, three quarters of it from others, and 8 with
    # seven others in two computations.
    assert found["all-gather"] == (6, 3 * (256 + 16), 3 * (192 + 14))
    # The result of the sum is cut at once: what a device receives is three quarters of it.
    assert found["reduce-scatter"] == (3, 3 * 128, 3 * 384)
    assert found["collective-permute"] == (5, 5 * 40, 5 * 40)
    assert found["all-reduce"] == (1, 20, 20)
    assert found.keys() == {"all-gather", "reduce-scatter", "collective-permute", "all-reduce"}


def test_exchanges_of_shard_map_have_one_channel():
    def sent(operand):
        return (
            f"  %{operand}.1 = f32[10]{{0}} collective-permute(%{operand}), channel_id=1, "
            f"source_target_pairs={{{{0,1}},{{1,0}}}}"
        )

    program = [
        *("%forward (p: (s32[])) -> (s32[]) {", sent("key"), sent("value"), "}"),
        "ENTRY %main (p: s32[]) -> f32[] {",
        "  %w = (s32[]) while(%t), condition=%more, body=%forward, "
        'backend_config={"known_trip_count":{"n":"3"}}',
        *(sent("key"), sent("gradient"), "}"),
    ]
    assert collectives("\n".join(program))["collective-permute"] == (8, 8 * 40, 8 * 40)


def test_cuts_come_with_little_cutting_first():
    assert list(cuts(4)) == [
        Cut(4, 1, 1),
        Cut(2, 2, 1),
        Cut(1, 4, 1),
        Cut(2, 1, 2),
        Cut(1, 2, 2),
        Cut(1, 1, 4),
    ]
    assert list(cuts(4, 2)) == list(cuts(2))
    assert not list(cuts(4, 3))


def test_the_longer_of_arithmetic_and_links_counts(chips):
    exchanged = {"all-reduce": {"moved": 500_000_000}}
    plan = {"computed_flops_per_step": 2 * 10**12, "collectives": exchanged}
    computing = estimate(plan, chips, Wishes(mfu=(0.3, 0.5)))
    assert computing["estimated_seconds"] == computing["compute_seconds"] == 1.0
    assert computing["exchange_seconds"] == 0.5
    exchanged["all-reduce"]["moved"] = 3_000_000_000
    exchanging = estimate(plan, chips, Wishes(mfu=(0.3, 0.5)))
    assert exchanging["estimated_seconds"] == 3.0
    first, last = plan | computing, plan | exchanging
    assert rank([last, first]) == [first, last]
    known = {"computed_flops_per_step": 1, "received": 9}
    assert rank([known | {"received": 10}, known, first])[0] == first
    assert planning.Wishes().mfu == (0.3, 0.5)
