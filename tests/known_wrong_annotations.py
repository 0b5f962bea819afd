"""Ways around annotations that are wrong today; delete each with its mistake, then the file."""

import typing
import warnings

from beartype.roar import BeartypeDecorHintPep585DeprecationWarning

from transformer.data.tokenizers import TextStream
from transformer.tasks.base import Task


def work_around():
    # config.py: typing.Iterable is deprecated for collections.abc.Iterable.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BeartypeDecorHintPep585DeprecationWarning)
        import transformer.config  # noqa: F401

    # tasks/base.py: the protocol Task is used in annotations and is not @runtime_checkable.
    typing.runtime_checkable(Task)

    # data/tokenizers.py: push(token: int) is handed np.int32 by decoding/sample.py.
    TextStream.push = getattr(TextStream.push, "__wrapped__", TextStream.push)
