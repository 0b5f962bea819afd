"""A model and its parameters in the form in which they write fastest or smallest."""

from transformer.nn.compute import computing
from transformer.nn.decoder import DecoderOnly
from transformer.nn.layouts import unstacked
from transformer.nn.stack import MAX_UNROLLED
from transformer.types import Params


def with_own_windows(model: DecoderOnly, params: Params) -> tuple[DecoderOnly, Params]:
    """Unrolls scanned layers whose windows differ, so that the cache of each has its own size.

    A loop over layers needs caches of one size: those of local layers would be as long as those of
    global ones.

    Args:
        model: a language model.
        params: its parameters.
    """
    differ = len(set(model.layer_windows())) > 1
    if not (model.compute.scan_layers and differ) or model.num_layers > MAX_UNROLLED:
        return model, params
    return computing(model, scan_layers=False), unstacked(params)
