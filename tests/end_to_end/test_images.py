"""Training on images, resuming, fine-tuning at another resolution and asking, as a user does it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.conftest import ROOT, call, fails, nothing_shown
from tests.runs import assert_same_run

STEPS = 12

pytestmark = pytest.mark.usefixtures("undrawn")

COLOURS = {"blue": (20, 40, 220), "green": (10, 200, 30), "red": (230, 20, 10)}


def tiny(name: str) -> list[str]:
    return [
        f"--config={ROOT / 'configs' / name}",
        "--config.model.num_layers=1",
        "--config.model.num_heads=2",
        "--config.model.width=16",
        "--config.model.decoder_layers=1",
        "--config.model.decoder_width=8",
        "--config.model.decoder_heads=2",
        "--config.model.patch_size=4",
        "--config.task.batch_size=8",
        "--config.task.validation_batch_size=8",
        # Runs of any duration are the same program, compiled once.
        "--config.optimizer.schedule=constant",
        "--config.optimizer.warmup=2 steps",
        f"--config.train.duration={STEPS}",
        "--config.train.steps_per_dispatch=1",
        "--config.train.log_every=1",
        "--config.train.save_every=3",
        "--config.train.evaluate_every=6",
        "--config.train.tensorboard=False",
    ]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Noisy images of one colour each, of several sizes, one of them grey."""
    source, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    for part, count in (("train", 16), ("val", 5)):
        for name, colour in COLOURS.items():
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                height, width = source.integers(12, 20, 2)
                noise = source.normal(0, 20, (height, width, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    Image.fromarray(np.full((9, 9), 99, np.uint8)).save(folder / "train" / "red" / "grey.png")
    return folder


@pytest.fixture(scope="module")
def training(photos) -> list[str]:
    return [
        *tiny("vit_digits.py"),
        f"--config.task.path={photos}",
        "--config.task.augmentation.flip=True",
        "--config.task.augmentation.mixup=0.2",
        "--config.model.image_size=8",
    ]


@pytest.fixture(scope="module")
def trained(training, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("vit") / "run"
    done = call("train.py", *training, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "1 of 49 images" in done.stderr
    return workdir


def test_a_run_cut_short_ends_with_the_same_bits(training, trained, tmp_path):
    """As if killed before the last checkpoint; `test_resume.py` kills processes of their own."""
    workdir = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    (workdir / "finished.json").unlink()
    done = call("train.py", *training, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert f"from step {STEPS - 3}" in done.stderr
    assert_same_run(workdir, trained)


def test_pictures_scores_and_predictions(trained):
    for name in ("confusion.png", "attention.png"):
        assert (trained / name).stat().st_size > 1000
    final = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert final["split"] == "final"
    assert {"accuracy", "macro_f1", "calibration_error"} <= final.keys()
    rows = [json.loads(row) for row in (trained / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 15
    assert {row["image"].split("/")[0] for row in rows} == set(COLOURS)


def test_images_are_classified(trained, photos, tmp_path):
    paths = [str(photos / "val" / name / "0.png") for name in COLOURS]
    done = call("predict.py", f"--workdir={trained}", *paths)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == paths
    assert all(len(row) == 4 for row in rows)
    by_line = call("predict.py", f"--workdir={trained}", "--json", input="\n".join(paths))
    found = [json.loads(line) for line in by_line.stdout.splitlines()]
    assert [row["image"] for row in found] == paths
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1)
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(paths[0]).read_bytes()[:60])
    fails(call("predict.py", f"--workdir={trained}", str(broken)), 2, "broken.png")
    fails(call("predict.py", f"--workdir={trained}", "nowhere.png"), 2, "nowhere.png")


def test_neighbours_and_another_set(trained, photos):
    done = call("evaluate.py", f"--workdir={trained}", "--neighbors=3", "--json")
    assert done.returncode == 0, done.stderr
    assert 0.0 <= json.loads(done.stdout)["neighbor_accuracy"] <= 1.0
    done = call("evaluate.py", f"--workdir={trained}", f"--path={photos / 'val'}", "--json")
    assert done.returncode == 0, done.stderr
    assert {"accuracy", "calibration_error"} <= json.loads(done.stdout).keys()


@pytest.fixture(scope="module")
def autoencoder(photos, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("mae") / "run"
    flags = [*tiny("vit_mae.py"), f"--config.task.path={photos}", "--config.train.duration=4"]
    done = call("train.py", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    fails(call("train.py", *flags, "--config.model.stem=convolutions", "--workdir=x"), 2, "hidden")
    return workdir


def test_reconstructions_are_drawn(autoencoder):
    assert (autoencoder / "reconstructions.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def tuned(photos, autoencoder, tmp_path_factory) -> str:
    """What is said where an encoder goes on with few labels, frozen, at another resolution."""
    flags = [
        *tiny("vit_digits.py:patches"),
        f"--config.task.path={photos}",
        "--config.train.duration=2",
        "--config.task.label_fraction=0.25",
        "--config.model.image_size=12",
        f"--config.init.workdir={autoencoder}",
        r"--config.optimizer.frozen=^(?!output|position)",
    ]
    with nothing_shown():
        done = call("train.py", *flags, f"--workdir={tmp_path_factory.mktemp('tuned') / 'run'}")
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_another_resolution_has_its_positions_interpolated(tuned):
    assert "resized     1  position_embedding (1)" in tuned


def test_a_masked_autoencoder_hands_on_its_encoder(tuned):
    assert "12 images to train on" in tuned
    assert "output (2)" in tuned
    assert "not used" in tuned


def test_unusable_images(training, photos, tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    for flag, said in (
        ("--config.model.patch_size=3", "patches must fill the image"),
        ("--config.task.preparation.image_size=12", "config.model.image_size"),
        ("--config.task.preparation.mean=(0.5,0.5)", "config.task.preparation.mean"),
        ("--config.task.augmentation.mixup=-1.0", "config.task.augmentation.mixup"),
        ("--config.model.channels=1", "is 1, and the data have 3"),
        ("--config.task.path=/nowhere", "does not exist"),
    ):
        fails(call("train.py", *training, flag, workdir), 2, said)
    other = tmp_path / "other"
    for part, names in (("train", COLOURS), ("val", ["blue", "pink"])):
        for name in names:
            (other / part / name).mkdir(parents=True)
            for number in range(3):
                image = Image.fromarray(np.full((8, 8, 3), number, np.uint8))
                image.save(other / part / name / f"{number}.png")
    fails(call("train.py", *training, f"--config.task.path={other}", workdir), 2, "pink")
    broken = other / "train" / "red" / "broken.png"
    broken.write_bytes(b"no image")
    path = f"--config.task.path={other / 'train'}"
    fails(call("train.py", *training, path, workdir), 2, "broken.png")
    skip = "--config.task.broken=skip"
    with nothing_shown():
        done = call("train.py", *training, path, skip, workdir, "--config.train.duration=2")
    assert done.returncode == 0, done.stderr
    assert "broken.png" in done.stderr
    assert "1 of 10" in done.stderr
