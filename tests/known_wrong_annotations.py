"""Ways around annotations that are wrong today: delete each line with its mistake, then the file."""

import typing
import warnings

from beartype.roar import BeartypeDecorHintPep585DeprecationWarning

# config.py: typing.Iterable is deprecated for collections.abc.Iterable.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", BeartypeDecorHintPep585DeprecationWarning)
    import transformer.config

import transformer.data.tokenizers
import transformer.tasks.base

# tasks/base.py: the protocol Task is used in annotations and is not @runtime_checkable.
typing.runtime_checkable(transformer.tasks.base.Task)

# data/tokenizers.py: push(token: int) is handed np.int32 by decoding/sample.py.
stream = transformer.data.tokenizers.TextStream
stream.push = getattr(stream.push, "__wrapped__", stream.push)
