"""Creates a run folder from published weights, for other scripts and `config.init.workdir`.

python scripts/import_hf.py --source=downloads/all-MiniLM-L6-v2 --workdir=runs/minilm

Reads a folder with config.json, model.safetensors and the files that prepare inputs: tokenizer.json
or vocab.txt of BERT, preprocessor_config.json of ViT, spiece.model of T5, source.spm, target.spm
and vocab.json of Marian (OPUS-MT). Also reads a folder of CTranslate2 (model.bin) with a Marian or
a Whisper. Pickles (.bin, .pt) are refused: loading one runs code.
"""

from pathlib import Path

from absl import flags

from transformer import command_line
from transformer.command_line import LENGTHS
from transformer.errors import ConfigError

flags.DEFINE_string("source", None, "The folder of the published model.")
flags.DEFINE_string("workdir", None, "The run folder to create.")
flags.DEFINE_integer("max_length", None, "Maximum tokens of a row.", **LENGTHS)
flags.DEFINE_string("tokenizer", None, "The tokenizer's file, if it is not in the model's folder.")
flags.DEFINE_string("ignore", None, "A pattern of the names of unknown arrays to leave out.")
flags.DEFINE_bool("scan_layers", False, "Stacks the parameters of all layers, to compile faster.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")


def main() -> int:
    """Imports and reports what was read."""
    values = command_line.FLAGS
    if not values.source:
        raise ConfigError("which model? Give --source=FOLDER")
    workdir = command_line.required_workdir()
    from transformer.runs.importing import import_published

    published = import_published(
        Path(values.source),
        workdir,
        tokenizer=values.tokenizer and Path(values.tokenizer),
        max_length=values.max_length,
        ignore=values.ignore,
        scan_layers=values.scan_layers,
    )
    count = sum(array.size for array in published.params.values())
    parts = sorted({path.split("/")[0] for path in published.params})
    result = {
        "workdir": str(workdir),
        "job": published.job,
        "labels": list(published.labels),
        "parameters": count,
        "parts": parts,
        "not_used": published.unused,
        "side_files": {name: used._asdict() for name, used in published.files.used().items()},
    }
    if values.json:
        command_line.print_json(result)
    else:
        print(f"{count:,} parameters in {workdir}: {', '.join(parts)}")
        print(f"arrays not used: {', '.join(published.unused) or 'none'}")
        for name, used in published.files.used().items():
            print(f"{name}: honoured {', '.join(used.honoured) or 'nothing'}")
            if used.irrelevant:
                print(f"  without effect on results: {', '.join(used.irrelevant)}")
            if used.unused:
                print(f"  NOT USED: {', '.join(used.unused)}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
