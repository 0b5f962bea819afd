"""What published models of speech hear: `preprocessor_config.json`."""

from transformer.data.audio.features import LogMel
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed
from transformer.interop.checked_values import refuse
from transformer.interop.side_files import SideFiles
from transformer.types import Json

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
# If both files exist, the library prefers this key of the second.
_INSIDE = "feature_extractor"
_IRRELEVANT = {
    "processor_class": "who wrote it",
    "feature_extractor_type": "there is one kind",
    "mel_filters": "they are computed",
    "return_attention_mask": "what else is returned",
    "padding": "how rows are returned",
    "truncation": "how rows are returned",
    "return_tensors": "what holds the arrays",
    "device": "where it is done",
}


def sound_fields(files: SideFiles, model: Json) -> Json:
    """Fields of `LogMel`.

    Args:
        files: the side files of the model.
        model: its fields.

    Raises:
        DataError: if they do not suit the model.
    """
    file = files[PREPROCESSOR]
    if PROCESSOR in files:
        both = files[PROCESSOR]
        both.irrelevant(_IRRELEVANT)
        if _INSIDE in both:
            file = both.inside(_INSIDE)
    file.irrelevant(_IRRELEVANT)
    # Silence and dither differ from ours; the last key is that of a method nobody publishes.
    file.usual(
        {"padding_value": 0.0, "dither": 0.0, "padding_side": "right", "do_normalize": False}
    )
    rate, hop = file.whole("sampling_rate", 16_000), file.whole("hop_length", 160)
    seconds = file.number("chunk_length", 30.0)
    frames = 2 * model["source_context"]
    if round(seconds * rate) // hop != frames:
        raise DataError(
            f"{file.where}: chunk_length {seconds:g}, sampling_rate {rate} and hop_length {hop} "
            f"make {round(seconds * rate) // hop} frames, and the model reads {frames} "
            f"(max_source_positions)."
        )
    file.only({"feature_size": model["num_features"]} if "feature_size" in file else {})
    # Their filters end at 8 kHz, whatever the sampling rate is.
    file.only({"sampling_rate": 16_000})
    file.usual({"n_samples": round(seconds * rate), "nb_max_frames": frames})
    window = file.whole("n_fft", 400)
    if window % 2:
        refuse(file.where, "n_fft", window, "an even number")
    found = {
        "sampling_rate": rate,
        "num_mels": model["num_features"],
        "window": window,
        "hop": hop,
        "pad_seconds": seconds,
        "scaling": "whisper",
    }
    try:
        LogMel(**found).check()
        require_allowed("task.features", LogMel(**found))
    except ConfigError as error:
        raise DataError(f"{file.where} describes no features: {error}") from None
    return found


def sound_content(features: LogMel) -> Json:
    """The content of `preprocessor_config.json`, which `sound_fields` reads."""
    seconds = features.padded_samples(0) / features.sampling_rate
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": features.num_mels,
        "sampling_rate": features.sampling_rate,
        "hop_length": features.hop,
        "n_fft": features.window,
        "chunk_length": int(seconds) if seconds == int(seconds) else seconds,
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
