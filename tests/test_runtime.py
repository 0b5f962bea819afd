import os

import jax
import pytest

from transformer import runtime


@pytest.mark.parametrize(
    ("platforms", "files", "expected"),
    [
        (None, [], False),
        (None, ["nvidia0", "nvidiactl"], True),
        (None, ["nvidiactl"], False),
        (None, ["vfio/0"], True),
        ("cpu", ["nvidia0"], False),
        ("cuda,cpu", ["nvidia0"], True),
        ("tpu", [], True),
    ],
)
def test_whether_there_may_be_an_accelerator(platforms, files, expected, tmp_path, monkeypatch):
    before = jax.config.jax_platforms
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(runtime, "_DEVICES", tmp_path)
    try:
        jax.config.update("jax_platforms", platforms)
        assert runtime.may_use_accelerator() == expected
    finally:
        jax.config.update("jax_platforms", before)


@pytest.mark.parametrize(
    ("files", "asked", "expected"),
    [
        (["nvidia0"], "", "--xla_gpu_enable_triton_gemm=false"),
        (["nvidia0"], "--xla_a=1", "--xla_a=1 --xla_gpu_enable_triton_gemm=false"),
        (["nvidia0"], "--xla_gpu_enable_triton_gemm=true", "--xla_gpu_enable_triton_gemm=true"),
        (["kfd"], "", ""),
        ([], "", ""),
    ],
)
def test_products_of_gpus_are_left_to_cublas(files, asked, expected, tmp_path, monkeypatch):
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(runtime, "_DEVICES", tmp_path)
    monkeypatch.setattr(runtime, "may_use_accelerator", lambda: bool(files))
    monkeypatch.setenv("XLA_FLAGS", asked)
    runtime.prefer_cublas()
    assert os.environ["XLA_FLAGS"] == expected
