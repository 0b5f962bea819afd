"""Looks into a trained model: every activation by name, what it does, and a page that shows it.

run = open_run(Path("runs/gpt_char"))
trace = explaining.trace(run, "ROMEO:")
weights = trace["attention_weights", 3]
"""

from transformer.explaining.editing import Ablate, Patch
from transformer.explaining.traces import StackTrace, Trace, next_token_losses
from transformer.explaining.tracing import trace

__all__ = ["Ablate", "Patch", "StackTrace", "Trace", "next_token_losses", "trace"]
