import functools
import math
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters, normal
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.models.vit import POOLINGS, POSITIONS, ViT
from transformer.nn.compute import Compute, computing
from transformer.nn.patch_decoder import PatchDecoder
from transformer.nn.patches import STEMS
from transformer.ops.patches import patchify, unpatchify
from transformer.ops.positions import sinusoidal, sinusoidal_2d

GRID, SIDE, B = 3, 2, 2
TINY = ViT(
    num_outputs=5,
    channels=2,
    image_size=GRID * SIDE,
    patch_size=SIDE,
    num_layers=2,
    num_heads=2,
    width=8,
    feed_forward_width=12,
    num_registers=1,
    decoder_layers=1,
    decoder_width=8,
    decoder_heads=2,
)
MEAN = TINY.clone(pooling="mean")
T = GRID**2
FRONT = 2
IMAGES = normal(np.random.default_rng(0), B, TINY.image_size, TINY.image_size, 2)
IN_ORDER = jnp.tile(jnp.arange(T), (B, 1))
ORDER = np.stack([np.random.default_rng(seed).permutation(T) for seed in range(B)]).astype("int32")
NUM_SEEN = 4

SIZES = {
    "Ti/16": (5_717_416, {"width": 192, "num_heads": 3}),
    "S/16": (22_050_664, {"width": 384, "num_heads": 6}),
    "B/16": (86_567_656, {}),
    "L/16": (304_326_632, {"num_layers": 24, "width": 1024, "num_heads": 16}),
    "H/14": (632_045_800, {"num_layers": 32, "width": 1280, "num_heads": 16, "patch_size": 14}),
}
# Every value of every choice at least once.
CONFIGURATIONS = {
    "class": {"pooling": "class", "positions": "learned", "num_registers": 0},
    "mean": {
        "pooling": "mean",
        "positions": "sinusoidal",
        "stem": "convolutions",
        "num_registers": 2,
        "layer_scale": 0.5,
    },
    "attention": {
        "pooling": "attention",
        "positions": "sinusoidal_2d",
        "compute": Compute(scan_layers=True),
    },
}


def both_jobs(model, images):
    return model.classify(images), model.reconstruct(images, IN_ORDER, NUM_SEEN)


def parameters_of(model, method):
    made = types.SimpleNamespace(init=functools.partial(model.init, method=method))
    return noisy_parameters(made, IMAGES)


@functools.cache
def parameters(model):
    """Of all methods."""
    return parameters_of(model, both_jobs)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def compiled(model, method, num_seen, params, inputs, rngs):
    rest = () if num_seen is None else (num_seen,)
    return model.apply({"params": params}, *inputs, *rest, method=method, rngs=rngs)


def ours(method, *inputs, model=TINY, params=None, rngs=None, num_seen=None):
    params = parameters(model) if params is None else params
    inputs = jax.tree.map(jnp.asarray, inputs)
    return np.asarray(compiled(model, method, num_seen, params, inputs, rngs or {}))


def features(images=IMAGES, seen=IN_ORDER, **options):
    return ours("__call__", images, seen, **options)


def reconstructed(images=IMAGES, order=ORDER, **options):
    return ours("reconstruct", images, order, num_seen=NUM_SEEN, **options)


def shapes_of(model, method="classify", *rest, images=IMAGES):
    init = functools.partial(model.init, method=method)
    return nn.meta.unbox(jax.eval_shape(lambda: init(jax.random.key(0), images, *rest))["params"])


def count(shapes):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def with_patches(images, change):
    """The images, with their patches changed."""
    return unpatchify(change(patchify(images, SIDE)), SIDE, GRID)


# -------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("size", SIZES)
def test_numbers_of_parameters_are_the_published_ones(size):
    expected, fields = SIZES[size]
    images = jnp.zeros((1, 224, 224, 3))
    # Scanned, for it is traced sooner; of `B/16` both ways.
    for scan in {True, size != "B/16"}:
        model = ViT(num_outputs=1000, channels=3, compute=Compute(scan_layers=scan), **fields)
        require_allowed("model", model)
        assert count(shapes_of(model, images=images)) == expected


ENCODER = {"patch_embedding", "class_token", "registers", "position_embedding", "blocks"}
ENCODER |= {"final_norm"}


@pytest.mark.parametrize(
    ("method", "rest", "heads"),
    [
        ("__call__", (), set()),
        ("embed", (), set()),
        ("classify", (), {"output"}),
        ("reconstruct", (IN_ORDER, NUM_SEEN), {"decoder"}),
    ],
)
def test_parameters_exist_for_the_method_that_is_called(method, rest, heads):
    assert set(shapes_of(TINY, method, *rest)) == ENCODER | heads


@pytest.mark.parametrize(
    ("fields", "more", "fewer"),
    [
        ({"pooling": "mean"}, set(), {"class_token"}),
        ({"pooling": "attention"}, {"pooler"}, {"class_token"}),
        ({"num_registers": 0}, set(), {"registers"}),
        ({"positions": "sinusoidal"}, set(), {"position_embedding"}),
        ({"positions": "sinusoidal_2d"}, set(), {"position_embedding"}),
    ],
    ids=str,
)
def test_parameters_exist_for_what_is_chosen(fields, more, fewer):
    assert set(shapes_of(TINY.clone(**fields), "embed")) == (ENCODER | more) - fewer


def test_only_patches_and_the_class_token_have_a_position():
    for model, rows in ((TINY, T + 1), (MEAN, T)):
        assert parameters(model)["position_embedding"]["embedding"].shape == (rows, 8)


def test_the_channels_must_be_known():
    with pytest.raises(ConfigError, match=r"config\.model\.channels"):
        shapes_of(TINY.clone(channels=None))


# ------------------------------------------------------------------------------ computation


def test_the_documented_example():
    model = ViT(num_outputs=20, channels=3, image_size=48, num_layers=1, width=64, num_heads=4)
    require_allowed("model", model)
    images = jnp.zeros((1, 48, 48, 3))
    assert patchify(images, model.patch_size).shape == (1, 9, 768)
    params = shapes_of(model, images=images)
    assert params["patch_embedding"]["dense"]["kernel"].shape == (768, 64)
    variables = {"params": params}
    states = jax.eval_shape(model.apply, variables, images)
    assert states.shape == (1, 1 + 9, 64)
    logits = jax.eval_shape(functools.partial(model.apply, method="classify"), variables, images)
    assert logits.shape == (1, 20)


def test_the_configurations_have_every_value():
    for field, values in (("pooling", POOLINGS), ("positions", POSITIONS), ("stem", STEMS)):
        given = {fields.get(field, getattr(TINY, field)) for fields in CONFIGURATIONS.values()}
        assert given == set(values)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_and_gradients(name):
    model = TINY.clone(**CONFIGURATIONS[name])
    require_allowed("model", model)
    params = parameters_of(model, "classify")

    @jax.jit
    def both(params):
        def loss(params):
            logits = model.apply({"params": params}, IMAGES, method="classify")
            return jnp.sum(jnp.sin(logits)), logits

        return jax.grad(loss, has_aux=True)(params)

    gradients, logits = both(params)
    assert logits.shape == (B, 5)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        # What is added to all keys changes no weight.
        if "['key']['bias']" not in jax.tree_util.keystr(path):
            assert np.abs(leaf).max() > 1e-5, path


def test_the_class_token_stands_first():
    params = parameters(TINY)
    found = features()
    assert found.shape == (B, FRONT + T, 8)
    np.testing.assert_allclose(ours("embed", IMAGES), found[:, 0], atol=1e-5)
    # It has the first position: what is added there might as well be added to the token.
    added = normal(np.random.default_rng(3), 1, 8)
    table = params["position_embedding"]["embedding"]
    moved = {**params, "position_embedding": {"embedding": table.at[:1].add(added)}}
    token = {**params, "class_token": params["class_token"] + added}
    np.testing.assert_allclose(features(params=moved), features(params=token), atol=1e-5)
    assert np.abs(features(params=token) - found).max() > 1e-2
    # The patches have the others.
    moved = {**params, "position_embedding": {"embedding": table.at[1:].add(added)}}
    dense = params["patch_embedding"]["dense"]
    shifted = {"dense": {**dense, "bias": dense["bias"] + added[0]}}
    np.testing.assert_allclose(
        features(params=moved), features(params={**params, "patch_embedding": shifted}), atol=1e-5
    )


@pytest.mark.parametrize("positions", ["sinusoidal", "sinusoidal_2d"])
def test_fixed_positions_are_a_table_that_is_not_learned(positions):
    table = {
        "sinusoidal": sinusoidal(jnp.arange(T), 8),
        "sinusoidal_2d": sinusoidal_2d(GRID, GRID, 8),
    }[positions]
    # The class token has none.
    table = {"embedding": jnp.concatenate([jnp.zeros((1, 8)), table])}
    params = {**parameters(TINY), "position_embedding": table}
    found = features(model=TINY.clone(positions=positions), params=params)
    np.testing.assert_allclose(found, features(params=params), atol=1e-5)


def test_patches_with_their_positions_may_change_places():
    params = parameters(MEAN)
    order = ORDER[0]
    moved = with_patches(IMAGES, lambda patches: patches[:, order])
    table = params["position_embedding"]["embedding"]
    both = {**params, "position_embedding": {"embedding": table[order]}}
    expected = ours("embed", IMAGES, model=MEAN)
    np.testing.assert_allclose(ours("embed", moved, model=MEAN, params=both), expected, atol=1e-5)
    assert np.abs(ours("embed", moved, model=MEAN) - expected).max() > 1e-3


def test_registers_are_not_pooled():
    found = features(model=MEAN)
    assert found.shape == (B, 1 + T, 8)
    pooled = ours("embed", IMAGES, model=MEAN)
    np.testing.assert_allclose(pooled, found[:, 1:].mean(axis=1), atol=1e-5)
    # But they are looked at on the way.
    params = parameters(MEAN)
    other = {**params, "registers": -params["registers"]}
    assert np.abs(ours("embed", IMAGES, model=MEAN, params=other) - pooled).max() > 1e-3


def stacked(params):
    layers = [params["blocks"][f"layer_{index}"] for index in range(TINY.num_layers)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    return {**params, "blocks": {"layers": together}}


def test_scanned_is_unrolled():
    model = computing(TINY, scan_layers=True)
    scanned = features(model=model, params=stacked(parameters(TINY)))
    np.testing.assert_allclose(scanned, features(), atol=1e-5)


def test_all_patches_are_seen_unless_said_otherwise():
    np.testing.assert_allclose(ours("__call__", IMAGES), features(), atol=1e-5)


def test_the_order_in_which_patches_are_seen_is_that_of_the_tokens():
    expected, found = features(), features(seen=ORDER)
    np.testing.assert_allclose(found[:, :FRONT], expected[:, :FRONT], atol=1e-5)
    patches = np.take_along_axis(expected[:, FRONT:], ORDER[..., None], axis=1)
    np.testing.assert_allclose(found[:, FRONT:], patches, atol=1e-5)


def hidden_changed(images):
    """The images with other pixels in all hidden patches."""
    hidden = (np.argsort(ORDER, axis=1) >= NUM_SEEN)[..., None]
    return with_patches(images, lambda patches: jnp.where(hidden, patches + 3.0, patches))


def test_hidden_patches_are_not_looked_at():
    changed = hidden_changed(IMAGES)
    assert (np.asarray(changed) != np.asarray(IMAGES)).sum() == B * (T - NUM_SEEN) * SIDE**2 * 2
    expected = reconstructed()
    assert expected.shape == (B, T, SIDE**2 * 2)
    np.testing.assert_array_equal(reconstructed(changed), expected)
    # Those that are seen are, for every patch.
    for place in range(NUM_SEEN):
        rows = np.arange(B)
        touched = with_patches(
            IMAGES,
            lambda patches, rows=rows, place=place: patches.at[rows, ORDER[:, place]].add(1.0),
        )
        difference = np.abs(reconstructed(touched) - expected).max(axis=-1)
        assert (difference > 1e-5).all()


def test_the_order_among_seen_and_among_hidden_patches_does_not_matter():
    other = np.concatenate([ORDER[:, :NUM_SEEN][:, ::-1], ORDER[:, NUM_SEEN:][:, ::-1]], axis=1)
    np.testing.assert_allclose(reconstructed(order=other), reconstructed(), atol=1e-5)


def test_a_learned_vector_stands_where_patches_are_hidden():
    # Without layers; the embedding changes nothing, so that the vector can be put in by hand.
    decoder = PatchDecoder(nn.Dense, 0, 8, 6, 1e-6, "float32")
    states = normal(np.random.default_rng(4), B, FRONT + NUM_SEEN, 8)
    shapes = jax.eval_shape(lambda: decoder.init(jax.random.key(0), states, IN_ORDER, FRONT))
    made = types.SimpleNamespace(init=lambda _: shapes)
    params = noisy_parameters(made)
    params["embedding"] = {"kernel": jnp.eye(8), "bias": jnp.zeros(8)}
    full = np.tile(np.asarray(params["mask_token"]), (B, T, 1))
    for row in range(B):
        full[row, ORDER[row, :NUM_SEEN]] = states[row, FRONT:]
    x = full + np.asarray(sinusoidal_2d(GRID, GRID, 8))
    norm, pixels = params["norm"], params["pixels"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    expected = (x * norm["scale"] + norm["bias"]) @ pixels["kernel"] + pixels["bias"]
    places = jnp.asarray(np.argsort(ORDER, axis=1))
    decode = jax.jit(functools.partial(decoder.apply, {"params": params}, num_front=FRONT))
    np.testing.assert_allclose(decode(states, places), expected, atol=1e-5)


def test_reconstruction_wants_a_stem_that_keeps_patches_apart():
    model = TINY.clone(stem="convolutions")
    with pytest.raises(ConfigError, match=r"config\.model\.stem"):
        shapes_of(model, "reconstruct", IN_ORDER, NUM_SEEN)


def test_branches_are_left_out_exactly_with_a_key():
    always = MEAN.clone(stochastic_depth_rate=1.0 - 1e-7)
    dropping = MEAN.clone(dropout_rate=0.3)
    params, key = parameters(MEAN), {"dropout": jax.random.key(0, impl="rbg")}
    plain = ours("embed", IMAGES, model=MEAN)
    for model in (always, dropping):
        without = ours("embed", IMAGES, model=model, params=params)
        np.testing.assert_allclose(without, plain, atol=1e-5)
        found = ours("embed", IMAGES, model=model, params=params, rngs=key)
        assert np.abs(found - plain).max() > 1e-3
    # The last layer always, the first never.
    first = {**params, "blocks": {"layer_0": params["blocks"]["layer_0"]}}
    expected = ours("embed", IMAGES, model=MEAN.clone(num_layers=1), params=first)
    found = ours("embed", IMAGES, model=always, params=params, rngs=key)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_initial_classes_are_equally_likely():
    model = TINY.clone(compute=Compute(scan_layers=True), num_outputs=10, width=64)
    init = jax.jit(functools.partial(model.init, method="classify"))
    params = nn.meta.unbox(init(jax.random.key(0), IMAGES))["params"]
    logits = ours("classify", IMAGES, model=model, params=params)
    losses = -jax.nn.log_softmax(logits)
    assert np.abs(losses.mean(axis=0) / math.log(10) - 1).max() < 0.2
    assert abs(losses.mean() / math.log(10) - 1) < 0.03
    assert np.abs(logits[0] - logits[1]).max() > 1e-5


def test_bfloat16_keeps_parameters_and_scores_in_float32():
    model = TINY.clone(compute=Compute(dtype="bfloat16"), pooling="attention")
    for method, rest in (("classify", ()), ("embed", ()), ("reconstruct", (IN_ORDER, NUM_SEEN))):
        params = shapes_of(model, method, *rest)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}

        def apply(params, method=method, rest=rest):
            return model.apply({"params": params}, IMAGES, *rest, method=method)

        assert jax.eval_shape(apply, params).dtype == jnp.float32
    states = jax.eval_shape(model.apply, {"params": shapes_of(model, "__call__")}, IMAGES)
    assert states.dtype == jnp.bfloat16
