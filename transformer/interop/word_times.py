"""Which heads of a published model say when words were said."""

from transformer.data.audio.windows import Windows
from transformer.interop.checked_values import refuse
from transformer.interop.side_files import SideFile
from transformer.types import Json

_HEADS, WIDTH = "alignment_heads", "median_filter_width"
_USUAL_WIDTH = 7


def word_time_fields(said: SideFile, config: SideFile, model: Json) -> Json:
    """Fields of `Windows`.

    Args:
        said: the file about what is written.
        config: `config.json`.
        model: fields of the model.

    Raises:
        DataError: if a head is not in the model, or a filter has no middle.
    """
    width = config.whole(WIDTH, _USUAL_WIDTH, most=999)
    if width % 2 == 0:
        refuse(config.where, WIDTH, width, "an odd number")
    given = said.get(_HEADS)
    pairs = [] if given is None else given
    layers, heads = model["num_decoder_layers"], model["num_heads"]
    if not isinstance(pairs, list) or not all(_is_head(pair, layers, heads) for pair in pairs):
        expected = f"pairs of a layer below {layers} and a head below {heads}"
        refuse(said.where, _HEADS, given, expected)
    return {"alignment_heads": tuple(map(tuple, pairs)), "median_width": width}


def _is_head(pair: object, layers: int, heads: int) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    return all(
        type(number) is int and 0 <= number < end
        for number, end in zip(pair, (layers, heads), strict=True)
    )


def word_time_content(windows: Windows) -> Json:
    """What `generation_config.json` says of it."""
    return {_HEADS: [list(pair) for pair in windows.alignment_heads]}
