"""Mixtral of `transformers`: the same logits and the same losses of the routers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.models.mixtral import Mixtral
from transformer.nn.mixture import LOSSES
from transformer.ops.routing import balance_loss, route
from transformer.tasks.parts.losses import auxiliary_losses

torch = pytest.importorskip("torch", reason="torch makes the models")
transformers = pytest.importorskip("transformers", reason="transformers makes the models")

EXPERTS, CHOICES, HEADS, KV_HEADS, WIDTH, LAYERS = 4, 2, 4, 2, 32, 2
TOKENS = np.random.default_rng(0).integers(2, 61, (2, 20))


def theirs():
    """A model with random weights of more than the usual size, so that differences show."""
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=61,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        num_local_experts=EXPERTS,
        num_experts_per_tok=CHOICES,
        max_position_embeddings=64,
        output_router_logits=True,
    )
    model = transformers.MixtralForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def ours(state):
    """Their parameters, as they lie in memory, in our places."""
    state = {name.removeprefix("model."): value.numpy() for name, value in state.items()}

    def layer(number):
        own = {
            name.removeprefix(f"layers.{number}."): value
            for name, value in state.items()
            if name.startswith(f"layers.{number}.")
        }

        def heads(name, count):
            return {"kernel": own[f"self_attn.{name}.weight"].T.reshape(WIDTH, count, -1)}

        # [E, 2F, D]: the gate of each expert before its up.
        gate, up = np.split(own["mlp.experts.gate_up_proj"].swapaxes(1, 2), 2, axis=2)
        return {
            "attention_norm": {"scale": own["input_layernorm.weight"]},
            "attention": {
                "query": heads("q_proj", HEADS),
                "key": heads("k_proj", KV_HEADS),
                "value": heads("v_proj", KV_HEADS),
                "output": {"kernel": own["self_attn.o_proj.weight"].T.reshape(HEADS, -1, WIDTH)},
            },
            "feed_forward_norm": {"scale": own["post_attention_layernorm.weight"]},
            "feed_forward": {
                "router": {"kernel": own["mlp.gate.weight"].T},
                "experts": {
                    "gate": {"kernel": gate},
                    "up": {"kernel": up},
                    "down": {"kernel": own["mlp.experts.down_proj"].swapaxes(1, 2)},
                },
            },
        }

    return {
        "token_embedding": {"embedding": state["embed_tokens.weight"]},
        "blocks": {f"layer_{number}": layer(number) for number in range(LAYERS)},
        "final_norm": {"scale": state["norm.weight"]},
        "output": {"kernel": state["lm_head.weight"].T},
    }


@pytest.fixture(scope="module")
def pair():
    """Their output, our model and their parameters as ours."""
    model = theirs()
    with torch.no_grad():
        output = model(torch.tensor(TOKENS))
    mixtral = Mixtral(
        vocab_size=61,
        num_layers=LAYERS,
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        width=WIDTH,
        feed_forward_width=48,
        num_experts=EXPERTS,
        experts_per_token=CHOICES,
        rope_base=1e6,
        context=64,
    )
    return output, mixtral, ours(model.state_dict())


def balance_of_theirs(logits, mask=None):
    module = transformers.models.mixtral.modeling_mixtral
    return module.load_balancing_loss_func(logits, EXPERTS, CHOICES, mask).item()


@pytest.mark.parametrize("capacity_factor", [None, 2.0])
def test_same_logits_and_balance(pair, capacity_factor):
    output, model, params = pair
    model = model.clone(capacity_factor=capacity_factor)  # 2 is all: E / k.
    (logits, _), collected = jax.jit(
        lambda params: model.apply({"params": params}, jnp.asarray(TOKENS), mutable=[LOSSES])
    )(params)
    assert float(output.logits.abs().max()) > 1
    np.testing.assert_allclose(logits, output.logits, atol=1e-4)
    # One layer after the other: each must be balanced by itself.
    layers = [balance_of_theirs((layer,)) for layer in output.router_logits]
    found = auxiliary_losses(collected)["router_balance"]
    np.testing.assert_allclose(found, np.mean(layers), rtol=1e-5)


def test_same_balance_of_all_layers_together(pair):
    """Theirs counts the tokens of all layers as those of one."""
    output, _, _ = pair
    routing = route(jnp.asarray(torch.cat(output.router_logits).numpy()), CHOICES)
    np.testing.assert_allclose(balance_loss(routing), output.aux_loss.item(), rtol=1e-5)
    mask = np.arange(20) < np.array([[20], [7]])
    found = balance_loss(routing, jnp.tile(jnp.asarray(mask.reshape(-1)), LAYERS))
    expected = balance_of_theirs(output.router_logits, torch.tensor(mask))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert abs(expected - output.aux_loss.item()) > 1e-3
