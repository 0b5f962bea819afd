"""Whispers of `transformers` with random weights, and sounds for them."""

import contextlib

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

RATE = 16_000
LETTERS = [*map(chr, range(97, 123)), "Ġ"]
END = len(LETTERS)
NAMES = [
    *("endoftext", "startoftranscript", "en", "de", "fr", "translate", "transcribe"),
    *("startoflm", "startofprev", "nospeech", "notimestamps"),
]
MARKS = {name: END + place for place, name in enumerate(NAMES)}
SIZE = {
    "num_mel_bins": 20,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "d_model": 32,
    "max_source_positions": 50,
    "max_target_positions": 40,
    "pad_token_id": END,
    "bos_token_id": END,
    "eos_token_id": END,
    "decoder_start_token_id": MARKS["startoftranscript"],
}
UNWRITTEN = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech")


def tokenizer():
    """Letters, the marks of Whisper, and no times, as in most folders."""
    made = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(LETTERS)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    names = [f"<|{name}|>" for name in NAMES]
    made.add_special_tokens(
        [tokenizers.AddedToken(n, special=True, normalized=False) for n in names]
    )
    return made


def theirs(transformers, torch, **changed):
    """A model that hears a window of a second."""
    torch.manual_seed(0)
    num_tokens = END + len(NAMES) + changed.get("max_source_positions", 50) + 1
    config = transformers.WhisperConfig(**{**SIZE, "vocab_size": num_tokens, **changed})
    model = transformers.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "encoder.embed_positions" not in name:
                parameter.add_(0.25 * torch.randn_like(parameter))
    said = model.generation_config
    said.suppress_tokens = [1, 2, *(MARKS[name] for name in UNWRITTEN)]
    said.begin_suppress_tokens = [END - 1, END]
    said.no_timestamps_token_id = MARKS["notimestamps"]
    said.prev_sot_token_id = MARKS["startofprev"]
    said.lang_to_id = {f"<|{name}|>": MARKS[name] for name in ("en", "de", "fr")}
    said.task_to_id = {name: MARKS[name] for name in ("transcribe", "translate")}
    said.is_multilingual, said.return_timestamps = True, False
    said.max_initial_timestamp_index, said.max_length = 20, 40
    said.decoder_start_token_id = MARKS["startoftranscript"]
    # Otherwise the library would not read these from the folder.
    said._from_model_config = False
    return model


def publish(transformers, model, folder):
    """Writes a folder as `save_pretrained` does."""
    model.save_pretrained(folder)
    config = model.config
    extractor = transformers.WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=config.max_source_positions // 50
    )
    extractor.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return extractor


def sound(seconds, seed):
    """Tones that change ten times a second, louder and softer."""
    rng, count = np.random.default_rng(seed), int(seconds * RATE)
    steps = int(seconds * 10) + 1
    frequency = np.repeat(rng.uniform(100, 3000, steps), RATE // 10)[:count]
    loudness = np.repeat(rng.uniform(0, 1, steps), RATE // 10)[:count]
    tones = 0.3 * loudness * np.sin(2 * np.pi * np.cumsum(frequency) / RATE)
    return (tones + 0.01 * rng.normal(size=count)).astype(np.float32)


class Held:
    """A sound in memory that is only read forwards."""

    def __init__(self, samples):
        self.samples, self.last = samples, 0

    def window(self, start, count):
        assert start >= self.last
        self.last = start
        return self.samples[start : start + count]


def openers(sounds):
    """What `Dictation.transcripts` takes."""

    def opener(samples):
        return lambda: contextlib.nullcontext(Held(samples))

    return [(str(index), opener(samples)) for index, samples in enumerate(sounds)]
