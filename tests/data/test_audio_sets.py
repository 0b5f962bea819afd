import json

import numpy as np
import pytest

from transformer.data.audio.reading import read_audio
from transformer.data.audio.sets import read_evaluation_recordings, read_recordings
from transformer.errors import DataError

soundfile = pytest.importorskip("soundfile", reason="reads recordings")
soxr = pytest.importorskip("soxr", reason="changes the sampling rate")
RATE = 16_000


def noise(seconds=1.0, seed=0, rate=RATE):
    """Samples of 16 bits."""
    generator = np.random.default_rng(seed)
    return generator.integers(-9000, 9000, int(seconds * rate), dtype=np.int16)


def write(path, samples=None, text=None, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise() if samples is None else samples, rate)
    if text is not None:
        path.with_suffix(".txt").write_text(text)
    return path


def write_lines(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def test_a_folder_with_texts_beside(tmp_path):
    write(tmp_path / "b" / "1.flac", text=" two\n words ")
    write(tmp_path / "a.wav", noise(0.5, 1, 8000), text="one", rate=8000)
    train, validation, notes = read_recordings(tmp_path, RATE)
    assert train.transcripts == ["one", "two words"]
    assert train.lengths.tolist() == [8000, RATE]
    # To the bit.
    np.testing.assert_array_equal(train[1], noise())
    np.testing.assert_allclose(train[0], read_audio(tmp_path / "a.wav", RATE) * 32768, atol=0.5)
    assert validation is None
    assert notes == ()


def test_parts_of_a_folder(tmp_path):
    for part in ("train", "dev", "test"):
        write(tmp_path / part / "1.wav", text=part)
    train, validation, _ = read_recordings(tmp_path, RATE)
    assert (train.transcripts, validation.transcripts) == (["train"], ["dev"])
    assert read_evaluation_recordings(tmp_path, RATE).transcripts == ["test"]


def test_recordings_and_texts_belong_together(tmp_path):
    write(tmp_path / "a.wav", text="a")
    lonely = write(tmp_path / "b.wav")
    with pytest.raises(DataError, match=r"b.wav has no transcript beside it, b.txt"):
        read_recordings(tmp_path, RATE)
    lonely.unlink()
    (tmp_path / "c.txt").write_text("c")
    with pytest.raises(DataError, match=r"c.txt has no recording beside it"):
        read_recordings(tmp_path, RATE)


def test_a_broken_file_is_named(tmp_path):
    write(tmp_path / "a.wav", text="a").write_bytes(b"text" * 100)
    with pytest.raises(DataError, match=r"a.wav is no recording"):
        read_recordings(tmp_path, RATE)


def test_too_long_and_silent_recordings(tmp_path):
    write(tmp_path / "a.wav", text="")
    write(tmp_path / "b.wav", noise(2.0), text="b")
    train, _, notes = read_recordings(tmp_path, RATE, max_seconds=1.5)
    assert train.transcripts == [""]
    np.testing.assert_array_equal(train[0], noise())
    assert notes == (
        "1 recordings for train have an empty transcript.",
        "1 of 2 recordings for train are longer than 1.5 seconds and are left out.",
    )
    with pytest.raises(DataError, match=r"every recording for train is longer than 0.5 seconds"):
        read_recordings(tmp_path, RATE, max_seconds=0.5)


def test_a_manifest(tmp_path):
    write(tmp_path / "x" / "a.wav")
    path = write_lines(
        tmp_path / "m.jsonl",
        {"audio": "x/a.wav", "text": "all", "duration": 1.0},
        "",
        {"audio_filepath": "x/a.wav", "text": "part", "offset": 0.25, "duration": 0.5, "id": 3},
    )
    train, validation, notes = read_recordings(path, RATE)
    assert validation is None
    assert train.transcripts == ["all", "part"]
    assert train.names[1] == f"{path}, line 3"
    np.testing.assert_array_equal(train[1], noise()[4000:12_000])
    assert notes == (f"{path}: the keys id are not used.",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"audio": "b.wav", "text": "b"}, "line 2 names 'b.wav', and .*b.wav does not exist"),
        ({"audio": "../a.wav", "text": "b"}, "line 2 names '../a.wav', and only what is below"),
        ({"audio": "/etc/a.wav", "text": "b"}, "line 2 names '/etc/a.wav', and only"),
        ({"audio": "", "text": "b"}, "line 2 has an empty 'audio'"),
        ({"audio": "a.wav"}, "line 2 lacks 'text': it has audio"),
        ({"file": "a.wav", "text": "b"}, "line 2 lacks 'audio': it has file, text"),
        ({"audio": "a.wav", "text": 3}, "line 2 has a whole number for 'text'"),
        ({"audio": "a.wav", "text": "b", "offset": -1}, "line 2 has -1 for 'offset'"),
        (
            {"audio": "a.wav", "text": "b", "offset": 0.5, "duration": 2},
            "line 2: the part from 0.5 to 2.5 seconds is not in a.wav, which has 1.00",
        ),
        ({"audio": "t.wav", "text": "b"}, r"line 2: .*t.wav is no recording"),
        ("{", "line 2 is not JSON"),
    ],
)
def test_wrong_lines_of_a_manifest(tmp_path, row, message):
    write(tmp_path / "a.wav")
    (tmp_path / "t.wav").write_text("text")
    path = write_lines(tmp_path / "m.jsonl", {"audio": "a.wav", "text": "a"}, row)
    with pytest.raises(DataError, match=message):
        read_recordings(path, RATE)


def write_librispeech(root, part, speaker="19", chapter="198"):
    folder = root / part / speaker / chapter
    names = [f"{speaker}-{chapter}-000{index}" for index in range(2)]
    for seed, name in enumerate(names):
        write(folder / f"{name}.flac", noise(seed=seed))
    return write_lines(
        folder / f"{speaker}-{chapter}.trans.txt", *(f"{name} {part.upper()} TWO" for name in names)
    )


def test_librispeech(tmp_path):
    write_librispeech(tmp_path, "train-clean-100")
    write_librispeech(tmp_path, "train-other-500")
    write_librispeech(tmp_path, "dev-clean")
    (tmp_path / "SPEAKERS.TXT").write_text("; a table")
    train, validation, _ = read_recordings(tmp_path, RATE)
    assert len(train) == 4
    assert validation.transcripts == ["DEV-CLEAN TWO"] * 2
    np.testing.assert_array_equal(validation[1], noise(seed=1))
    # A part alone.
    assert len(read_recordings(tmp_path / "dev-clean", RATE).train) == 2
    assert len(read_recordings(tmp_path / "dev-clean" / "19", RATE).train) == 2


def test_librispeech_without_a_recording(tmp_path):
    file = write_librispeech(tmp_path, "train-clean-100")
    (file.parent / "19-198-0001.flac").unlink()
    with pytest.raises(DataError, match=r"19-198.trans.txt, line 2 names 19-198-0001, and there"):
        read_recordings(tmp_path, RATE)
    write_lines(file, "../19-198-0001 ONE")
    with pytest.raises(DataError, match=r"line 1 names '../19-198-0001', which is no file beside"):
        read_recordings(tmp_path, RATE)


def write_kaldi(folder, *lines, segments=()):
    write(folder / "wav" / "r.wav")
    write_lines(folder / "wav.scp", *(lines or ("r wav/r.wav",)))
    write_lines(folder / "text", "u1 one word", "u2 two")
    if segments:
        write_lines(folder / "segments", *segments)


def test_kaldi(tmp_path):
    write_kaldi(tmp_path / "train", segments=("u1 r 0 0.5", "u2 r 0.5 -1", "u3 r 0 1"))
    write_kaldi(tmp_path / "dev", "u1 wav/r.wav", "u2 wav/r.wav")
    train, validation, notes = read_recordings(tmp_path, RATE)
    assert train.transcripts == validation.transcripts == ["one word", "two"]
    np.testing.assert_array_equal(train[1], noise()[8000:])
    np.testing.assert_array_equal(validation[1], noise())
    assert notes == (f"{tmp_path / 'train'}: 1 utterances without a text are left out.",)
    assert len(read_recordings(tmp_path / "dev", RATE).train) == 2


@pytest.mark.parametrize(
    ("files", "segments", "message"),
    [
        (("u1 sox a.wav - |", "u2 wav/r.wav"), (), r"wav.scp, line 1 has a command, .*not run"),
        (("u1 wav/r.wav", "u2 wav/s.wav"), (), r"wav.scp, line 2 names 'wav/s.wav'"),
        (("u1 wav/r.wav",), (), r"text, line 2 has the utterance u2, and wav.scp lacks u2"),
        (("u1 wav/r.wav", "u1 wav/r.wav"), (), r"wav.scp, line 2 has u1 for the second time"),
        (("r wav/r.wav",), ("u1 r 0 0.5",), r"text, line 2 has the utterance u2, which segments"),
        (("r wav/r.wav",), ("u1 r 0", "u2 r 0 1"), r"segments, line 1 has 'r 0': expected"),
        (("r wav/r.wav",), ("u1 r 0 3", "u2 r 0 1"), r"text, line 1: the part from 0 to 3"),
    ],
)
def test_wrong_lines_of_kaldi(tmp_path, files, segments, message):
    write_kaldi(tmp_path, *files, segments=segments)
    with pytest.raises(DataError, match=message):
        read_recordings(tmp_path, RATE)


def test_frames_in_arrays(tmp_path):
    frames = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float16)
    arrays = {"train_x": frames, "train_n": np.array([4, 5]), "train_t": np.array(["a", "b c"])}
    arrays |= {"test_x": frames, "test_n": np.array([9]), "test_t": np.array(["d"])}
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    train, validation, _ = read_recordings(path, RATE, max_seconds=1e-9)
    assert train.num_features == 4
    assert train.transcripts == ["a", "b c"]
    np.testing.assert_array_equal(train[1], frames[4:])
    assert validation.transcripts == ["d"]
    for wrong, message in (
        ({"train_n": np.array([4, 6])}, "do not add up"),
        ({"train_t": np.array(["a"])}, "a text and a length for each"),
        ({"train_x": frames * np.float16(np.nan)}, "NaN"),
        ({"train_x": frames.astype(int)}, "has int64 of 2 axes"),
        ({"train_x": np.zeros(9, np.int16)}, "lacks their sampling_rate"),
        ({"train_t": np.array(["a", None])}, "Python objects"),
    ):
        np.savez(path, **(arrays | wrong))
        with pytest.raises(DataError, match=message):
            read_recordings(path, RATE)


def test_samples_in_arrays(tmp_path):
    path, samples = tmp_path / "a.npz", noise(1.0, rate=8000)
    np.savez(
        path,
        train_x=samples,
        train_n=np.array([5000, 3000]),
        train_t=np.array(["a", "b"]),
        sampling_rate=8000,
    )
    train = read_recordings(path, RATE).train
    assert train.lengths.tolist() == [10_000, 6000]
    # Without the noise that soxr adds to integers.
    expected = soxr.resample(samples[5000:].astype(np.float32), 8000, RATE)
    np.testing.assert_array_equal(train[1], np.round(expected))
    np.testing.assert_array_equal(read_recordings(path, 8000).train[1], samples[5000:])


def test_spoken_digits(tmp_path):
    names = np.array(["7_jackson_4", "0_theo_5", "9_theo_40"])
    samples = np.arange(6, dtype=np.int16)
    np.savez(tmp_path / "f.npz", samples=samples, lengths=np.array([1, 2, 3]), names=names)
    train, validation, _ = read_recordings(tmp_path / "f.npz", 8000)
    assert train.transcripts == ["zero", "nine"]
    assert validation.transcripts == ["seven"]
    np.testing.assert_array_equal(train[1], [3, 4, 5])
    np.testing.assert_array_equal(validation[0], [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": np.array(["7_jackson_4", "theo_5"])}, "a length and a name for each"),
        ({"names": np.array(["7_jackson_4"])}, "a length and a name for each"),
        ({"lengths": np.array([1, 4])}, "do not add up to its 6 samples"),
    ],
)
def test_wrong_spoken_digits(tmp_path, change, message):
    arrays = {"samples": np.zeros(6, np.int16), "lengths": np.array([1, 5])}
    path = tmp_path / "f.npz"
    np.savez(path, **arrays | {"names": np.array(["7_jackson_4", "0_theo_5"])} | change)
    with pytest.raises(DataError, match=message):
        read_recordings(path, 8000)


@pytest.mark.parametrize("rate", [8000.0, 0, "8000"])
def test_a_rate_that_is_none(tmp_path, rate):
    np.savez(tmp_path / "a.npz", train_x=np.zeros(9, np.int16), sampling_rate=rate)
    with pytest.raises(DataError, match=rf"sampling_rate is {rate!r}, and a whole number is"):
        read_recordings(tmp_path / "a.npz", RATE)


def test_two_folders_of_one_part(tmp_path):
    for folder in ("dev", "valid"):
        write(tmp_path / folder / "1.wav", text="a")
    write(tmp_path / "train" / "1.wav", text="a")
    with pytest.raises(DataError, match=r"dev and .*valid are both for validation: keep one"):
        read_recordings(tmp_path, RATE)


def test_a_folder_within_itself_is_read_once(tmp_path):
    write(tmp_path / "a" / "1.wav", text="a")
    (tmp_path / "a" / "b").symlink_to(tmp_path)
    assert read_recordings(tmp_path, RATE).train.transcripts == ["a"]


def test_a_digest_sees_changes(tmp_path):
    def digest():
        return read_recordings(tmp_path, RATE).train.digest

    write(tmp_path / "a.wav", text="a")
    first = digest()
    assert digest() == first
    write(tmp_path / "a.wav", noise(seed=1), text="a")
    second = digest()
    write(tmp_path / "a.wav", noise(seed=1), text="b")
    assert len({first, second, digest()}) == 3


def test_what_is_no_set(tmp_path):
    with pytest.raises(DataError, match=r"does not exist. What can be read: .*LibriSpeech"):
        read_recordings(tmp_path / "none", RATE)
    with pytest.raises(DataError, match="is no set of recordings"):
        read_recordings(tmp_path, RATE)
    write(tmp_path / "a.wav")
    with pytest.raises(DataError, match="is no set of recordings"):
        read_recordings(tmp_path / "a.wav", RATE)
    write(tmp_path / "test" / "a.wav", text="a")
    with pytest.raises(DataError, match="has recordings for test, but none for training"):
        read_recordings(tmp_path, RATE)
