import jax
import pytest

from transformer.ops.platforms import is_one_cpu, platform


@pytest.mark.parametrize(("devices", "one"), [(1, True), (2, False)])
def test_a_described_mesh_without_a_device_is_of_our_own(devices, one):
    assert platform() == "cpu"
    assert is_one_cpu()
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((devices,), ("data",))):
        assert platform() == "cpu"
        assert is_one_cpu() == one


def test_a_described_device_counts():
    device = jax.sharding.AbstractDevice("TPU v5e", 1, "tpu")
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert platform() == "tpu"
        assert not is_one_cpu()
