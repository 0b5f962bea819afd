"""Plans the training of a config on machines that this one need not have.

    python scripts/plan.py --config=configs/llama.py:llama3-8b --topology=v5e:16x16 --tokens=1T

Compiles the real training step with the real compiler and runs nothing. The compiler for TPUs
comes with `pip install -e '.[plan]'`, that for NVIDIA's GPUs with `.[plan-gpu]`. `--search` tries
and ranks ways to shard the model over devices and to recompute activations. The exit code is 1 if
it does not fit.
"""

from absl import flags
from ml_collections import config_flags

from transformer import command_line
from transformer.errors import ConfigError

flags.DEFINE_string("topology", None, "Such as v5e:16x16, h100:8, cpu:N, or gpu.")
flags.DEFINE_string("tokens", None, "Tokens to train on, like 1T; default: the config's.")
flags.DEFINE_list("mfu", ["0.3", "0.5"], "Lowest and highest expected model FLOPs utilisation.")
flags.DEFINE_float(
    "price", None, "Price of one chip for one hour.", lower_bound=0.0, upper_bound=1e9
)
flags.DEFINE_bool("search", False, "Tries meshes and recomputation, and ranks them.")
flags.DEFINE_integer(
    "most", 16, "Maximum number of programs that a search compiles.", lower_bound=1
)
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")
config_flags.DEFINE_config_file("config", None, "The config file, as FILE.py or FILE.py:VARIANT.")


def main() -> int:
    """Finds the devices, then plans or searches."""
    values = command_line.FLAGS
    config = command_line.loaded_config(values)
    if not values.topology:
        raise ConfigError("for which devices? Give --topology, such as v5e:16x16, h100:8 or cpu:8.")
    from transformer.planning import plan as planning
    from transformer.training.accelerators import find_target

    tokens = None if values.tokens is None else planning.parse_tokens(values.tokens)
    wishes = planning.Wishes(tokens, planning.parse_mfu(values.mfu), values.price)
    target = find_target(values.topology)
    if values.search:
        from transformer.planning import search as plan_search

        found = plan_search.search(config, target, wishes, values.most)
        command_line.print_json(found) if values.json else plan_search.show(found)
        return 0 if found["ranked"] else 1
    report = planning.plan(config, target, wishes)
    command_line.print_json(report) if values.json else planning.show(report)
    return 0 if report["fits"] else 1


if __name__ == "__main__":
    command_line.run(main)
