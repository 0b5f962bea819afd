"""The files that tiny runs read: texts, pairs, labels, images, recordings, games."""

import json
import random
import wave
from pathlib import Path

import numpy as np
from PIL import Image

from transformer.data.labels.squad import Answer, Question, write_squad

WORDS = ("ann", "bob", "eve", "tom", "sees", "hears", "the", "cat", "dog", "near", "red", "house")
COLOURS = {"blue": (20, 40, 220), "green": (10, 200, 30), "red": (230, 20, 10)}
# Of recordings, in Hz.
RATE = 2000


def write_data(folder: Path) -> None:
    """All of them; the same ones each time."""
    for make in (_texts, _pairs, _labelled, _tags, _proteins, _questions, _images, _sounds, _chess):
        make(folder, random.Random(make.__name__))


def _sentence(source: random.Random, least: int = 3, most: int = 7) -> str:
    return " ".join(source.choices(WORDS, k=source.randint(least, most)))


def _texts(folder: Path, source: random.Random) -> None:
    lines = [_sentence(source) for _ in range(100)]
    (folder / "text.txt").write_text("\n".join(lines), "utf-8")
    documents = ("\n".join(_sentence(source) for _ in range(4)) for _ in range(40))
    (folder / "sentences.txt").write_text("\n\n".join(documents), "utf-8")


def _pairs(folder: Path, source: random.Random) -> None:
    for name, count in (("train", 80), ("val", 12)):
        lines = [_sentence(source, 1, 11) for _ in range(count)]
        (folder / f"{name}.src").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        turned = "".join(" ".join(line.split()[::-1]) + "\n" for line in lines)
        (folder / f"{name}.tgt").write_text(turned, "utf-8")
    words = [source.choice(WORDS) for _ in range(40)]
    _rows(folder / "turn.jsonl", [{"source": word, "target": word[::-1]} for word in words])


def _labelled(folder: Path, source: random.Random) -> None:
    def row() -> dict[str, str]:
        text, other = _sentence(source), _sentence(source)
        return {"text": text, "other": other, "label": "cat" if "cat" in text else "none"}

    for name in ("texts", "both"):
        _rows(folder / f"{name}.jsonl", [row() for _ in range(80)])


def _tags(folder: Path, source: random.Random) -> None:
    names = WORDS[:4]
    sentences = (
        f"{source.choice(names)} B-PER\nsees O\nmister B-PER\n{source.choice(names)} I-PER\n"
        for _ in range(40)
    )
    (folder / "tags.conll").write_text("\n".join(sentences), "utf-8")


def _proteins(folder: Path, source: random.Random) -> None:
    proteins = ("".join(source.choices("ACDEFGHIKL", k=12)) for _ in range(60))
    records = "".join(f">{number}\n{each}\n" for number, each in enumerate(proteins))
    (folder / "a.fasta").write_text(records, "utf-8")


def _questions(folder: Path, source: random.Random) -> None:
    questions = []
    for number in range(40):
        first, second = source.sample(WORDS[:4], 2)
        context = f"{first} has the  hat. {second} has the coat."
        answer = (Answer(second, context.rindex(second)),) if number % 4 else ()
        questions.append(Question(str(number), "who has the coat?", context, answer))
    write_squad(questions, folder / "questions.json")


def _images(folder: Path, source: random.Random) -> None:
    random = np.random.default_rng(source.randrange(2**32))
    for part, count in (("train", 12), ("val", 4)):
        for name, colour in COLOURS.items():
            (folder / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                noise = random.normal(0, 20, (*random.integers(8, 14, 2), 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "images" / part / name / f"{index}.png")


def _sounds(folder: Path, source: random.Random) -> None:
    random = np.random.default_rng(source.randrange(2**32))
    rows = []
    for number in range(24):
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            count = int(random.integers(RATE // 2, RATE * 3 // 2))
            file.writeframes(random.normal(0, 3000, count).astype("<i2").tobytes())
        rows.append({"audio": f"{number}.wav", "text": source.choice(WORDS)})
    _rows(folder / "recordings.jsonl", rows)


def _chess(folder: Path, source: random.Random) -> None:
    pawns, knights = ("a", "b", "d", "e", "g", "h"), ("Nf", "Nc")
    games = (
        f"1. {source.choice(pawns)}4 {source.choice(pawns)}5 "
        f"2. {source.choice(knights)}3 {source.choice(knights)}6 *"
        for _ in range(40)
    )
    (folder / "games.pgn").write_text("\n\n".join(games), "utf-8")


def _rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
