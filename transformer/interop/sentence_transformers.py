"""Reads and writes the embedding settings of the library `sentence-transformers`.

`modules.json` lists the steps from a text to a vector: encoder, pooling, optional normalisation.
"""

from pathlib import Path

from transformer.data.reading.json_text import shown
from transformer.data.text.embeddings import POOLINGS, Embedding
from transformer.errors import DataError
from transformer.files import write_json
from transformer.interop.checked_values import is_inside
from transformer.interop.side_files import SideFiles
from transformer.types import Json

MODULES = "modules.json"
_SENTENCE = "sentence_bert_config.json"
_PROMPTS = "config_sentence_transformers.json"
_POOLING_FOLDER, _NORMALIZE_FOLDER = "1_Pooling", "2_Normalize"
# The flag of each pooling, in the order in which several are concatenated.
_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
# The default pooling.
_USUALLY = "mean"
# The minimum number of tokens of a row: its beginning, one token, and its end.
_LEAST = 3
# Keys that matter only for comparing vectors, which is done elsewhere.
_OF_OTHERS = {
    "__version__": "who wrote it",
    "model_type": "who wrote it",
    "similarity_fn_name": "how vectors are compared, which embed.py does not",
}


def read_embedding(files: SideFiles, folder: Path) -> Embedding | None:
    """Reads how vectors are made; None if the folder is not of that library.

    Args:
        files: the side files of the folder.
        folder: the folder, for messages.

    Raises:
        DataError: names an unsupported setting.
    """
    if MODULES not in files:
        return None
    pooling, normalize = None, False
    modules = files[MODULES]
    for place, key in enumerate(modules):
        module = modules.inside(key)
        module.irrelevant({"idx": "the place in the list", "name": "for people"})
        module.irrelevant({"kwargs": "what callers may ask for"})
        kind, path = module.text("type", "").rsplit(".", 1)[-1], module.text("path", "")
        if kind == "Transformer" and place == 0 and path in ("", "."):
            continue
        if kind == "Pooling" and pooling is None and place == 1:
            pooling = _pooling(files, folder, path)
        elif kind == "Normalize" and pooling is not None:
            normalize = True
            module.irrelevant({"path": "it has no file"})
        else:
            raise DataError(
                f"{folder / MODULES} has a module of the type {module.get('type')!r} with the path "
                f"{path!r}: what can be read are the encoder in the folder itself, Pooling and "
                f"Normalize, in this order."
            )
    if pooling is None:
        raise DataError(f"{folder / MODULES} has no module of the type Pooling.")
    names, include_prompt = pooling
    sentence = files[_SENTENCE]
    max_length = sentence.whole_or_none("max_seq_length", least=_LEAST)
    prompts = files[_PROMPTS]
    prompts.irrelevant(_OF_OTHERS)
    given = prompts.get("prompts") or {}
    default = prompts.text_or_none("default_prompt_name")
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        raise DataError(f"{prompts.where}: prompts are {shown(given)}: expected texts by name.")
    if default is not None and default not in given:
        raise DataError(
            f"{prompts.where}: default_prompt_name is {default!r}, and prompts has "
            f"{', '.join(given) or 'none'}."
        )
    return Embedding(
        pooling=names,
        normalize=normalize,
        max_length=max_length,
        lowercase=sentence.flag("do_lower_case", False),
        prompts=given,
        default_prompt=default,
        include_prompt=include_prompt,
    )


def _pooling(files: SideFiles, folder: Path, path: str) -> tuple[tuple[str, ...], bool]:
    """The poolings to concatenate, and whether they include the prompt."""
    name = f"{path}/config.json"
    if not is_inside(path) or name not in files:
        raise DataError(f"{folder} has no {name}, which {MODULES} names as the path of Pooling.")
    config = files[name]
    config.irrelevant(
        dict.fromkeys(("word_embedding_dimension", "embedding_dimension"), "arrays say it")
    )
    mode = config.get("pooling_mode")
    if mode is None:
        names = [pool for pool, key in _FLAGS.items() if config.flag(key, pool == _USUALLY)]
    else:
        config.irrelevant(dict.fromkeys(_FLAGS.values(), "pooling_mode says it"))
        asked = mode if isinstance(mode, list) else [mode]
        asked = [str(x).lower() for x in asked]
        unknown = [x for x in asked if x not in POOLINGS]
        if unknown:
            raise DataError(
                f"{folder / name}: pooling_mode is {shown(mode)}: what is known are "
                f"{', '.join(POOLINGS)}."
            )
        names = [pool for pool in _FLAGS if pool in asked]
    if not names:
        flags = ", ".join(key for key in _FLAGS.values() if key in config)
        raise DataError(f"{folder / name} pools nothing: all of {flags} are false.")
    return tuple(names), config.flag("include_prompt", True)


def write_embedding(embedding: Embedding, width: int, folder: Path) -> None:
    """Writes the files of that library.

    Args:
        embedding: how vectors are made.
        width: D, of the encoder.
        folder: the folder with its `config.json`.
    """
    parts = [("", "Transformer"), (_POOLING_FOLDER, "Pooling")]
    parts += [(_NORMALIZE_FOLDER, "Normalize")] if embedding.normalize else []
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, (path, kind) in enumerate(parts)
    ]
    for path, _ in parts[1:]:
        (folder / path).mkdir()
    pooling: Json = {"word_embedding_dimension": width}
    pooling |= {key: pool in embedding.pooling for pool, key in _FLAGS.items()}
    sentence = {"max_seq_length": embedding.max_length, "do_lower_case": embedding.lowercase}
    prompts = {
        "prompts": dict(embedding.prompts),
        "default_prompt_name": embedding.default_prompt,
        "similarity_fn_name": None,
    }
    written = {
        MODULES: modules,
        f"{_POOLING_FOLDER}/config.json": pooling | {"include_prompt": embedding.include_prompt},
        _SENTENCE: sentence,
        _PROMPTS: prompts,
    }
    for name, content in written.items():
        write_json(folder / name, content)
