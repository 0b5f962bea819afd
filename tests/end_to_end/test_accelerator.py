"""`benchmarks/accelerator.py` with workers that compute nothing: what is told, kept and refused."""

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

DEVICE = {"kind": "NVIDIA H100 80GB HBM3", "platform": "gpu", "peak_flops": 1e12, "versions": {}}
# What workers do, by part and row; `say` prints facts of a line.
PROGRAM = """
import json, os, sys, time
def say(line, part="", **facts):
    print(json.dumps({"line": line, "part": part, **facts}), flush=True)
"""
FACTS = "ms=10.0, low=9.0, high=12.0, items=100, flops=2e9, flops_causal=1e9, bytes=3.35e9"


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import accelerator

    return accelerator


def compare(accelerator, tmp_path, programs, *, seconds=60.0, parts=None, beside=()):
    """Runs made-up rows; returns the exit code and what the JSON file holds."""
    from accelerating.rows import Row

    names = list(dict.fromkeys(row for _, row in programs))
    beside = dict(beside)
    rows = [
        Row(name, f"row {name}", peer="gpt2" * (name not in beside), beside=beside.get(name, ""))
        for name in names
    ]
    looks = f"say('device', device={DEVICE!r}, sizes={ {name: {} for name in names}!r})"

    def command(part, row, tiny, folder, sizes):
        program = looks if part == "device" else programs.get((part, row), "")
        return [sys.executable, "-c", PROGRAM + program]

    options = argparse.Namespace(
        tiny=False,
        seconds=seconds,
        json=tmp_path / "out.json",
        parts=parts or ["ours", "peer"],
    )
    before = signal.getsignal(signal.SIGTERM)
    try:
        code = accelerator.compare(rows, options, tmp_path, command)
    finally:
        signal.signal(signal.SIGTERM, before)
    return code, json.loads(options.json.read_text())


def test_rows_and_their_peers_make_a_table_and_a_file(accelerator, tmp_path, capsys):
    programs = {
        ("ours", "a"): f"print('noise'); say('row a', first=3.0); say('row a', {FACTS})",
        ("peer", "a"): "say('row a', name='PyTorch', ms=20.0, low=19.0, high=21.0, items=100)",
        ("warm", "a"): "say('row a', first=1.5)",
        ("ours", "b"): f"say('b, one', {FACTS}); say('b, two', {FACTS})",
    }
    code, found = compare(accelerator, tmp_path, programs, parts=["ours", "peer", "warm"])
    assert code == 0
    line = found["lines"]["row a"]
    assert line["ratio"] == pytest.approx(2.0)
    assert line["ours"]["first"] == 3.0 and line["warm"]["first"] == 1.5
    # 2e9 FLOPs in 10 ms of 1e12 FLOP/s; half of them count where pairs are hidden.
    assert line["ours"]["mfu"] == pytest.approx(0.2)
    assert line["ours"]["mfu_causal"] == pytest.approx(0.1)
    assert line["peer"]["mfu"] == pytest.approx(0.1)
    # 3.35e9 bytes in 10 ms of 3.35e12 bytes/s.
    assert line["ours"]["bandwidth_share"] == pytest.approx(0.1)
    assert {"b, one", "b, two"} < set(found["lines"])
    assert found["seconds"] > 0 and found["device"]["kind"] == DEVICE["kind"]
    shown = capsys.readouterr().out
    assert "2.00x" in shown and "20.0%" in shown and "PyTorch" in shown and "noise" not in shown


def test_rows_with_other_options_share_a_peer(accelerator, tmp_path):
    from accelerating.rows import ROWS

    plain = next(row for row in ROWS if row.name == "gpt2")
    others = [row for row in ROWS if row.beside == "gpt2"]
    assert ROWS.index(plain) < min(map(ROWS.index, others))
    for row in others:
        for tiny in (False, True):
            config = row.made_config(tmp_path, tiny)
            # Numbers that are cast are others than those that are kept.
            assert config.model.compute.dtype == "bfloat16"
    rows = {("ours", "a"): f"say('row a', {FACTS})", ("ours", "b"): f"say('row b', {FACTS})"}
    rows |= {("peer", "a"): "say('row a', name='PyTorch', ms=20.0, items=100)"}
    code, found = compare(accelerator, tmp_path, rows, beside={"b": "a"})
    assert code == 0
    assert found["lines"]["row b"]["ratio"] == pytest.approx(2.0)


def test_what_fails_says_why_and_the_rest_goes_on(accelerator, tmp_path, capsys):
    programs = {
        ("ours", "a"): "say('row a', first=3.0); raise ValueError('no such kernel')",
        ("peer", "a"): "sys.exit('torch is not installed')",
        ("ours", "b"): "os.kill(os.getpid(), 11)",
        ("ours", "c"): f"say('row c', {FACTS})",
    }
    code, found = compare(accelerator, tmp_path, programs)
    assert code == 1
    ours = found["lines"]["row a"]["ours"]
    assert ours["first"] == 3.0, "what was known before is kept"
    assert ours["failed"].endswith("ValueError: no such kernel")
    assert "Traceback" in ours["log"]
    assert found["lines"]["row a"]["peer"]["failed"] == "torch is not installed"
    assert found["lines"]["row b"]["ours"]["failed"] == "ended by SIGSEGV"
    assert found["lines"]["row c"]["ours"]["ms"] == 10.0
    assert "ours failed: " in capsys.readouterr().out


def test_a_part_that_hangs_is_killed_with_all_that_it_started(accelerator, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "LIMITS", accelerator.LIMITS | {"ours": (1.5, 1.5)})
    monkeypatch.setattr(accelerator, "LEAST", 0.1)
    started = (
        "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'import time; "
        "time.sleep(60)']); say('row a', first=1.0, child=child.pid); time.sleep(60)"
    )
    programs = {("ours", "a"): started, ("ours", "b"): f"say('row b', {FACTS})"}
    began = time.monotonic()
    code, found = compare(accelerator, tmp_path, programs)
    assert code == 1 and time.monotonic() - began < 30
    ours = found["lines"]["row a"]["ours"]
    assert ours["failed"] == "not done after 2 s" and ours["first"] == 1.0
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(ours["child"])], capture_output=True, text=True, check=False
    )
    assert state.stdout.strip()[:1] in ("", "Z")
    assert found["lines"]["row b"]["ours"]["ms"] == 10.0


def test_what_time_is_not_enough_for_is_named(accelerator, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "LEAST", 1.0)
    programs = {("ours", "a"): "time.sleep(60)", ("ours", "b"): "say('row b', ms=1.0)"}
    code, found = compare(accelerator, tmp_path, programs, seconds=2.0)
    assert code == 1
    assert found["lines"]["row b"]["ours"]["failed"] == "no time left for it"


def test_a_run_that_is_stopped_keeps_what_it_has(accelerator, tmp_path):
    programs = {("ours", "a"): f"say('row a', {FACTS}); time.sleep(60)"}
    timer = threading.Timer(1.5, lambda: signal.raise_signal(signal.SIGTERM))
    timer.start()
    code, found = compare(accelerator, tmp_path, programs)
    timer.join()
    assert code == 128 + signal.SIGTERM
    assert found["lines"]["row a"]["ours"]["ms"] == 10.0 and found["seconds"] < 30


def test_a_cpu_is_refused_where_an_accelerator_is_meant(accelerator, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DEVICE, "platform", "cpu")
    options = argparse.Namespace(tiny=False, seconds=60.0, json=None, parts=["ours"])
    said = f"say('device', device={DEVICE!r}, sizes={{}})"

    def command(*_):
        return [sys.executable, "-c", PROGRAM + said]

    before = signal.getsignal(signal.SIGTERM)
    assert accelerator.compare([], options, tmp_path, command) == 2
    signal.signal(signal.SIGTERM, before)
    assert "--tiny" in capsys.readouterr().err


def test_unknown_rows_are_refused_with_those_there_are(accelerator, capsys):
    with pytest.raises(SystemExit) as refused:
        accelerator.main(["--rows=gpt2,gpt3"])
    assert refused.value.code == 2
    assert "no gpt3: choose from gpt2, gpt2_scanned, vit" in capsys.readouterr().err


def test_every_row_has_a_config_at_full_size_and_a_peer(accelerator, tmp_path):
    from accelerating.rows import ROWS

    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    for row in ROWS:
        for tiny in (False, True):
            sizes = row.sizes(tmp_path, tiny)
            json.dumps(sizes)  # A peer is handed them as text.
            assert bool(sizes) == bool(row.config), row.name
    full = {row.name: row.sizes(tmp_path, False) for row in ROWS}
    assert (full["gpt2"]["batch_size"], full["gpt2"]["context"]) == (32, 1024)
    assert (full["vit"]["batch_size"], full["vit"]["image_size"]) == (256, 224)


def test_a_tiny_row_runs_from_end_to_end(tmp_path):
    path = tmp_path / "out.json"
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), "--tiny", "--rows=attention"]
    done = subprocess.run(
        [*command, "--parts=ours", f"--json={path}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = json.loads(path.read_text())["lines"]
    assert set(lines) == {
        f"attention, {shape}, {name}"
        for shape in ("4 x 64", "2 x 128")
        for name in ("blockwise", "einsum")
    }
    assert all(line["ours"]["ms"] > 0 for line in lines.values())
    assert all(title in done.stdout for title in lines)


PROGRAM_TEXT = """
%fused_write (parameter_0: f32[3,4], parameter_1: f32[4], parameter_2: s32[]) -> f32[3,4] {
  %parameter_0 = f32[3,4]{1,0} parameter(0)
  %parameter_1 = f32[4]{0} parameter(1)
  %row = f32[1,4]{1,0} bitcast(%parameter_1)
  %parameter_2 = s32[] parameter(2)
  ROOT %written = f32[3,4]{1,0} dynamic-update-slice(%parameter_0, %row, %parameter_2)
}

%body (state: (s32[], f32[3,4], f32[4])) -> (s32[], f32[3,4], f32[4]) {
  %state = (s32[], f32[3,4]{1,0}, f32[4]{0}) parameter(0)
  %index = s32[] get-tuple-element(%state), index=0
  %rows = f32[3,4]{1,0} get-tuple-element(%state), index=1
  %vector = f32[4]{0} get-tuple-element(%state), index=2
  %write = f32[3,4]{1,0} fusion(%rows, %vector, %index), kind=kLoop, calls=%fused_write
  ROOT %next = (s32[], f32[3,4]{1,0}, f32[4]{0}) tuple(%index, %write, %vector)
}

ENTRY %main (x: bf16[8,4], w: bf16[4,2]) -> bf16[8,2] {
  %x = bf16[8,4]{1,0} parameter(0)
  %w = bf16[4,2]{1,0} parameter(1)
  %start = (s32[], f32[3,4]{1,0}, f32[4]{0}) tuple()
  %loop = (s32[], f32[3,4]{1,0}, f32[4]{0}) while(%start), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %kernel = (bf16[8,4]{1,0}, u8[0]{0}) custom-call(%x), custom_call_target="__cudnn$fmhaSoftmax"
  ROOT %out = bf16[8,2]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/jit(_uniform)/dot"}
}
"""  # noqa: E501


def test_kernels_are_counted_with_what_they_move(accelerator):
    from accelerating.kernels import count

    found = count(PROGRAM_TEXT)
    # Three rounds of a loop, a kernel of cuDNN and a product.
    assert found.kernels == 5 and dict(found.custom) == {"__cudnn$fmhaSoftmax": 1}
    # A round reads a row and its place, and writes this row where it lies.
    assert found.bytes == 3 * (16 + 4 + 16) + (64 + 64) + (64 + 16 + 32)
    assert dict(found.products) == {"bf16": 2 * 8 * 2 * 4}
    assert found.random == 1 and found.instructions == 17
