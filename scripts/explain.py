"""Shows how a trained model computes its answer: a page for the browser.

python scripts/explain.py --workdir=runs/gpt_char --prompt="ROMEO:" --output=page.html
python scripts/explain.py --workdir=runs/dates --prompt="May 5" --target="5. Mai" --output=page.html
python scripts/explain.py --workdir=runs/vit --image=cat.jpg --output=page.html
python scripts/explain.py --workdir=runs/digits recording.wav --output=page.html
python scripts/explain.py --workdir=runs/gpt_char --prompt="ROMEO:" --serve

The page is one file, which opens without a server and without a network. With --serve the same page
is live: other prompts, heads and layers switched off, activations from another prompt.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError

if TYPE_CHECKING:
    from transformer.runs.opening import Run

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_multi_string(
    "prompt", None, "What the model reads. Given twice, both are shown side by side."
)
flags.DEFINE_string(
    "target",
    None,
    "The second text: the target of an encoder-decoder, or the transcript of a recording (by "
    "default the model writes it), the second of a pair, the context of a question.",
)
flags.DEFINE_string("image", None, "The path of an image, for models of images.")
flags.DEFINE_string("compare", None, "Another run folder, shown side by side.")
flags.DEFINE_string(
    "compare_checkpoint", None, "Its checkpoint, or another one of the same run; as --checkpoint."
)
flags.DEFINE_string("output", None, "The HTML file to write.")
flags.DEFINE_bool("serve", False, "Serves the page on this machine instead, until Ctrl-C.")
flags.DEFINE_integer(
    "port", 0, "The port to serve on; 0 takes a free one.", lower_bound=0, upper_bound=65535
)
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout when the page is written.")


def main(*recordings: str) -> int:
    """Opens the runs, and writes or serves the page."""
    values = command_line.FLAGS
    from transformer.checks import require_writable_file

    workdir = command_line.required_workdir()
    if values.serve == bool(values.output):
        raise ConfigError("where to? Give --output=FILE.html, or --serve.")
    if values.output:
        require_writable_file(Path(values.output), "--output")
    prompts = given_prompts(values, recordings)
    from transformer.explaining.opening import open_any
    from transformer.explaining.prompts import require_images, require_recordings

    runs = [open_any(workdir, values.checkpoint)]
    if values.compare or values.compare_checkpoint:
        other = Path(values.compare or workdir)
        runs.append(open_any(other, values.compare_checkpoint or "best"))
    for run in runs:
        if values.image is not None:
            require_images(run)
        if recordings:
            require_recordings(run)
    title = " and ".join(f"{run.workdir}, step {run.step}" for run in runs)
    if values.serve:
        return serve_page(runs, title, prompts, values)
    return write_page(runs, title, prompts, values)


def given_prompts(values: Any, recordings: tuple[str, ...]) -> list[str]:
    """The prompts, or the path of the image, or those of the recordings.

    Raises:
        ConfigError: if none or several of these are given.
    """
    given = {
        "--prompt": values.prompt or [],
        "--image": [] if values.image is None else [values.image],
        "a recording": list(recordings),
    }
    names = [name for name, found in given.items() if found]
    if len(names) > 1:
        raise ConfigError(f"{' and '.join(names)} are both given: a model reads one of them.")
    if not names:
        raise ConfigError(
            "what does the model read? Give --prompt=TEXT, or --image=FILE, or the path of a "
            "recording behind the flags."
        )
    return given[names[0]]


def write_page(runs: "list[Run]", title: str, prompts: list[str], values: Any) -> int:
    """Writes the page into a file."""
    from transformer import explaining
    from transformer.explaining.writing import most_tokens, page_of, require_one_family
    from transformer.files import write_text

    most = min(most_tokens(run) for run in runs)
    traces = [
        explaining.trace(run, prompt, values.target, most=most)
        for run in runs
        for prompt in prompts
    ]
    require_one_family(traces)
    for note in dict.fromkeys(note for trace in traces for note in trace.reading.notes):
        command_line.say(note)
    page = page_of(traces, title)
    write_text(Path(values.output), page)
    size = len(page.encode())
    if values.json:
        command_line.print_json({"step": runs[0].step, "output": values.output, "bytes": size})
    else:
        print(f"{values.output}: {size / 1e6:.2f} MB")
    return 0


def serve_page(runs: "list[Run]", title: str, prompts: list[str], values: Any) -> int:
    """Serves the page until the process is ended."""
    from transformer.explaining.server import Explainer, serve

    if len(prompts) > 1:
        raise ConfigError("--prompt is given more than once: a live page begins with one.")

    def tell(address: str) -> None:
        print(address, flush=True)
        command_line.say("Open this address in a browser of this machine; Ctrl-C ends the server.")

    serve(Explainer(runs, title, prompts[0], values.target), values.port, tell)
    return 0


if __name__ == "__main__":
    command_line.run(main, takes_arguments=True)
