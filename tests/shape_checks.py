"""The run-time check of the shape annotations in brainsched, for jaxtyping's import hook.

Only annotations that are jaxtyping's are checked, with beartype: brainsched checks the other
arguments by itself, with messages that the tests are about.
"""

import functools
from collections.abc import Callable
from typing import Any

from beartype import beartype


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the jaxtyping annotations of ``function`` at every call."""
    annotations = getattr(function, "__annotations__", {})
    shapes = {name: hint for name, hint in annotations.items() if "jaxtyping" in repr(hint)}
    if not shapes:
        return function
    checked = functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))
    del checked.__wrapped__
    function.__annotations__ = shapes
    return beartype(function)
