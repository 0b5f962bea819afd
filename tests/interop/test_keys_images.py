"""Every key of the side files of ViT and DeiT: another value, or none.

What comes of it is what comes of it in `transformers`, or the import names the key.
"""

import json
from collections import Counter

import numpy as np
import pytest

from tests.interop.keys import MISSING, Subject, outcome

pytest.importorskip("safetensors", reason="weights are read from its files")
pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

from tests.interop import image_models  # noqa: E402

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
RENAMED = {"0": "cat", "1": "dog", "2": "cat"}
VALUES = {
    CONFIG: {
        "architectures": [["ViTModel"]],
        "attention_probs_dropout_prob": [0.3],
        "chunk_size_feed_forward": [2],
        "dtype": ["float16"],
        "encoder_stride": [8],
        "head_dim": [4],
        "hidden_act": ["relu", "swish", "gelu_new", "gelu_python", "quick_gelu"],
        "hidden_dropout_prob": [0.3],
        "hidden_size": [32],
        "id2label": [RENAMED, {"0": "cat", "1": "dog"}, {"0": "cat", "1": "dog", "3": "owl"}],
        "image_size": [12, 9, [8, 8], [8, 12]],
        "initializer_range": [0.5],
        "intermediate_size": [32],
        "is_encoder_decoder": [True],
        "label2id": [{"cat": 2, "dog": 1, "owl": 0}],
        "layer_norm_eps": [0.1],
        "model_type": ["swin"],
        "num_attention_heads": [4, 3],
        "num_channels": [1, 4],
        "num_hidden_layers": [1, 3],
        "num_labels": [5],
        "output_attentions": [True],
        "output_hidden_states": [True],
        "patch_size": [2, [4, 4], [4, 2]],
        "pooler_act": ["relu"],
        "pooler_output_size": [4],
        "problem_type": [
            "single_label_classification",
            "multi_label_classification",
            "regression",
        ],
        "qkv_bias": [False],
        "return_dict": [False],
        "transformers_version": ["4.0.0"],
    },
    PROCESSOR: {
        "crop_pct": [0.5],
        "crop_size": [8, {"height": 8, "width": 8}, {"height": 8, "width": 6}, 6],
        "data_format": ["channels_last"],
        "default_to_square": [False],
        "device": ["cpu"],
        "disable_grouping": [True],
        "do_center_crop": [True, False, None],
        "do_convert_rgb": [True, False, None],
        "do_normalize": [False, None],
        "do_pad": [True, False],
        "do_rescale": [False, None],
        "do_resize": [False, None],
        "feature_extractor_type": ["DeiTFeatureExtractor"],
        "image_mean": [[0.1, 0.2, 0.3], 0.4, [0.5], None],
        "image_processor_type": [
            *(f"{kind}ImageProcessor" for kind in ("ViT", "DeiT", "CLIP", "Bit", "Beit")),
            "ViTImageProcessorFast",
        ],
        "image_seq_length": [7],
        "image_std": [[0.3, 0.2, 0.1], 0.4, [0.0, 1.0, 1.0]],
        "input_data_format": ["channels_last"],
        "pad_size": [{"height": 9, "width": 9}],
        "processor_class": ["ViTProcessor"],
        "resample": [0, 1, 2, 3, 4, 5, None],
        "rescale_factor": [0.01, 1.0],
        "return_tensors": ["np"],
        "size": [
            8,
            [8, 8],
            9,
            {"height": 9, "width": 12},
            {"height": 5, "width": 6},
            {"shortest_edge": 8},
            {"shortest_edge": 10},
            {"shortest_edge": 8, "longest_edge": 12},
            {"max_height": 8, "max_width": 8},
        ],
    },
    "processor_config.json": {
        "processor_class": ["ViTProcessor"],
        "image_processor": [
            {"image_processor_type": "ViTImageProcessor", "size": 8, "do_normalize": False}
        ],
    },
}
CASES = [
    (kind, file, key, value)
    for kind in ("ViT", "DeiT")
    for file, keys in VALUES.items()
    for key, values in keys.items()
    for value in [*values, MISSING]
]


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    pictures = image_models.write_pictures(root / "pictures")

    def compared(probabilities, names):
        # A name as a number: only numbers are compared.
        found = {"names": [float(sum(name.encode())) for name in names]}
        for picture, numbers in probabilities.items():
            found[picture] = np.full(len(names), np.nan) if numbers is None else numbers
        return found

    return {
        kind: Subject(
            image_models.published(root / kind, kind),
            lambda folder, kind=kind: compared(
                *image_models.their_probabilities(folder, pictures, kind)
            ),
            lambda found: compared(*image_models.our_probabilities(found, pictures)),
        )
        for kind in ("ViT", "DeiT")
    }


COUNTS = Counter()


@pytest.mark.parametrize(("kind", "file", "key", "value"), CASES)
def test_a_key_is_honoured_or_named(kind, file, key, value, subjects, tmp_path):
    COUNTS[kind, file, outcome(subjects[kind], tmp_path, file, key, value)] += 1


def test_no_key_is_left_out(subjects):
    """What they write, and what their classes know."""
    for kind, subject in subjects.items():
        known = {file: set(json.loads((subject.folder / file).read_text())) for file in VALUES if "processor_" not in file}
        known[CONFIG] |= set(getattr(transformers, f"{kind}Config").__dataclass_fields__)
        known[PROCESSOR] |= set(image_models.processor_of(kind).valid_kwargs.__annotations__)
        for file, keys in known.items():
            assert keys <= VALUES[file].keys(), file
