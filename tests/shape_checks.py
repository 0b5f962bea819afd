"""Checks of shapes at run time, at half the price of `jaxtyping.jaxtyped`.

That one checks parameters before a call and once more, with what is returned, after it. Here
beartype checks each once, and the sizes of a call are kept until it has returned.
"""

import functools
import inspect
import types
from collections.abc import Callable

import jaxtyping
from jaxtyping._storage import pop_shape_memo, push_shape_memo

ORIGINAL = jaxtyping.jaxtyped


def jaxtyped(*, typechecker: Callable) -> Callable[[Callable], Callable]:
    """What jaxtyping's import hook puts before each function and class."""

    def decorate(function: Callable) -> Callable:
        # What yields runs when its call has long returned; classes are another matter.
        # So are sizes that a parameter gives, such as `{channels}`: they need its value.
        if (
            not isinstance(function, types.FunctionType)
            or inspect.isgeneratorfunction(function)
            or any("{" in str(hint) for hint in function.__annotations__.values())
        ):
            return ORIGINAL(function, typechecker=typechecker)
        inner = typechecker(function)
        if inner is function:  # It has no annotations.
            return function

        @functools.wraps(function)
        def checked(*args, **kwargs):
            push_shape_memo({})
            try:
                return inner(*args, **kwargs)
            finally:
                pop_shape_memo()

        return checked

    return decorate
