"""Writing with guesses against one token at a time: the same text, in turns, in one process.

python benchmarks/speculation.py --workdir=runs/imported --prompt="def fibonacci(n):"
python benchmarks/speculation.py --workdir=runs/imported --draft=runs/small --file=prompts.txt
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

from transformer.runtime import prepare_process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--draft", default="lookup", help="lookup, or the folder of a smaller run")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--file", type=Path, help="a file whose text is the prompt")
    parser.add_argument("--max_new_tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--guesses", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    prepare_process()
    from transformer.decoding.sample import OneByOne, generate
    from transformer.decoding.speculation import Speculative
    from transformer.ops.logits import Sampling
    from transformer.runs.drafts import open_guesses
    from transformer.runs.opening import open_run

    run, sampling = open_run(arguments.workdir), Sampling(arguments.temperature)
    prompt = arguments.file.read_text("utf-8") if arguments.file else arguments.prompt
    ids = run.task.load_tokenizer(arguments.workdir).encode_prompt(prompt)
    writers = {"one by one": OneByOne(run.model, run.params, sampling)}
    for count in arguments.guesses:
        guesses = open_guesses(arguments.draft, run, count)
        writers[f"{count} guesses"] = Speculative(run.model, run.params, sampling, *guesses)

    def written(name: str) -> list[int]:
        count = arguments.max_new_tokens
        options = {"max_new_tokens": count, "sampling": sampling, "seed": 0, "chunk": 64}
        chunks = generate(run.model, run.params, [ids], writer=writers[name], **options)
        return [token for chunk in chunks for token in chunk[0].tolist()]

    expected = written("one by one")
    for name in writers:
        same = written(name) == expected
        print(f"{name}: {'the same text' if same else 'ANOTHER TEXT'}", file=sys.stderr)
    seconds: dict[str, list[float]] = {name: [] for name in writers}
    for _ in range(arguments.rounds):
        for name in writers:
            begin = time.perf_counter()
            written(name)
            seconds[name].append(time.perf_counter() - begin)
    for name, writer in writers.items():
        pairs = zip(seconds["one by one"], seconds[name], strict=True)
        ratios = sorted(plain / own for plain, own in pairs)
        each = 1e3 * statistics.median(seconds[name]) / arguments.max_new_tokens
        faster = f"{statistics.median(ratios):5.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        passes = ""
        if isinstance(writer, Speculative):
            passes = f"{writer.tokens / writer.passes:.2f} tokens a pass"
        print(f"{name:<12} {each:7.2f} ms a token  {faster}  {passes}")


if __name__ == "__main__":
    main()
