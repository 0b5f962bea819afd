import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.models.gpt import GPT
from transformer.nn.compute import Compute
from transformer.ops.losses import cross_entropy
from transformer.training.accelerators import ACCELERATORS
from transformer.training.flops import count_flops, peak_flops

LAYERS, WIDTH, CONTEXT, BATCH, VOCAB = 3, 16, 24, 4, 50


def model(tie_embeddings=True, **how):
    return GPT(
        vocab_size=VOCAB,
        num_layers=LAYERS,
        num_heads=2,
        width=WIDTH,
        context=CONTEXT,
        tie_embeddings=tie_embeddings,
        compute=Compute(attention="einsum", **how),
    )


def forward(gpt):
    def loss(params, tokens):
        logits, _ = gpt.apply({"params": params}, tokens)
        return cross_entropy(logits, tokens).nll.mean()

    tokens = jax.ShapeDtypeStruct((BATCH, CONTEXT), jnp.int32)
    params = jax.eval_shape(gpt.init, jax.random.key(0), jnp.zeros((1, CONTEXT), int))["params"]
    return loss, params, tokens


def closed_form():
    """6 N D (Kaplan et al. 2020, section 2.1), and 12 L T D a token for attention."""
    matrices = LAYERS * 12 * WIDTH**2 + VOCAB * WIDTH
    tokens = BATCH * CONTEXT
    return 6 * matrices * tokens + 12 * LAYERS * CONTEXT * WIDTH * tokens


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_training_takes_what_the_formula_says(scan, tied):
    counted = 3 * count_flops(*forward(model(scan_layers=scan, tie_embeddings=tied)))
    np.testing.assert_allclose(counted, closed_form(), rtol=0.01)


@pytest.mark.parametrize("scan", [False, True])
def test_the_gradient_program_has_three_times_the_forward_pass(scan):
    loss, params, tokens = forward(model(scan_layers=scan))
    counted = count_flops(jax.grad(loss), params, tokens)
    np.testing.assert_allclose(counted, closed_form(), rtol=0.01)


def test_recomputing_is_seen():
    loss, params, tokens = forward(model(remat="full"))
    assert count_flops(jax.grad(loss), params, tokens) > 1.2 * closed_form()


def test_a_product():
    x, y = jnp.zeros((5, 3)), jnp.zeros((3, 7))
    assert count_flops(jnp.matmul, x, y) == 2 * 5 * 3 * 7
    assert count_flops(jax.jit(jnp.matmul), x, y) == 2 * 5 * 3 * 7


def test_a_batched_product():
    x, y = jnp.zeros((4, 5, 3)), jnp.zeros((4, 3, 7))
    assert count_flops(jnp.matmul, x, y) == 2 * 4 * 5 * 3 * 7


def test_a_convolution():
    image, kernel = jnp.zeros((2, 3, 8, 8)), jnp.zeros((5, 3, 2, 2))

    def convolve(image, kernel):
        return jax.lax.conv(image, kernel, (2, 2), "VALID")

    assert count_flops(convolve, image, kernel) == 2 * (2 * 5 * 4 * 4) * (3 * 2 * 2)


def test_scans_are_multiplied_out():
    def power(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, length=6)[0]

    assert count_flops(power, jnp.zeros((3, 3))) == 6 * 2 * 27


def test_branches_count_the_dearest():
    def branch(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert count_flops(branch, jnp.zeros((3, 3))) == 2 * 2 * 27


def test_loops_of_unknown_length_are_refused():
    def loop(x, count):
        return jax.lax.fori_loop(0, count, lambda _, y: y @ x, x)

    with pytest.raises(ValueError, match="unknown length"):
        count_flops(loop, jnp.zeros((3, 3)), jnp.int32(5))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v5 lite", "TPU v5 lite"),
        ("TPU v5", "TPU v5"),
        ("TPU v3", "TPU v3"),
        ("TPU v5e", "TPU v5 lite"),
        ("TPU v5p", "TPU v5"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe"),
        ("NVIDIA H100 NVL", "NVIDIA H100 NVL"),
        ("NVIDIA H200 NVL", "NVIDIA H200 NVL"),
        ("NVIDIA B200", "NVIDIA B200"),
        ("NVIDIA L4", "NVIDIA L4"),
        ("NVIDIA L40S", None),
        ("Tesla T4", "Tesla T4"),
        ("cpu", None),
    ],
)
def test_peak_of_all_devices(monkeypatch, kind, name):
    class Device:
        device_kind = kind

    monkeypatch.setattr(jax, "devices", lambda: [Device()] * 4)
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    chips = 2 if name in ("TPU v3", "TPU7x") else 4
    assert peak_flops() == (None if name is None else chips * ACCELERATORS[name].peak_flops)


def test_peaks_of_the_data_sheets():
    """Dense, bfloat16, in TFLOP/s."""
    peaks = {"H100": 989, "H100 PCIe": 756, "H100 NVL": 835, "H200": 989, "B200": 2250, "L4": 121}
    for name, peak in peaks.items():
        assert ACCELERATORS[f"NVIDIA {name}"].peak_flops == peak * 1e12


def test_ragged_groups_count_each_row_once():
    rows, kernels, sizes = jnp.zeros((12, 3)), jnp.zeros((4, 3, 5)), jnp.array([5, 0, 4, 3])

    def product(rows, kernels):
        return jax.lax.ragged_dot(rows, kernels, sizes)

    assert count_flops(product, rows, kernels) == 2 * 12 * 3 * 5
    gradient = jax.grad(lambda *args: jnp.sum(jnp.sin(product(*args))), argnums=(0, 1))
    assert count_flops(gradient, rows, kernels) == 3 * 2 * 12 * 3 * 5
