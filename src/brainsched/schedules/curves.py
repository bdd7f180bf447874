"""The ways from one rate to another that several schedules take.

Both ends are exact, and nothing cancels: a rate is the sum of two that are not negative, and each
has a share that is accurate to its last digits, however small.
"""

import sys
from types import ModuleType
from typing import Any, NamedTuple

from brainsched.types import Array


class Progress(NamedTuple):
    """The shares of a span that are done and left: from 0 to 1, and from 1 to 0."""

    done: Array
    left: Array


def progress(epoch: Any, span: float, xp: ModuleType) -> Progress:
    """Return how much of the span from epoch 0 to ``span`` is done, and how much is left."""
    epoch = xp.minimum(xp.maximum(epoch, 0.0), span)
    # XLA turns a division by a constant into this product; so the bits are the same in NumPy.
    per_epoch = 1 / max(span, sys.float_info.min)
    done = xp.where(epoch < span, epoch * per_epoch, 1.0)
    left = xp.where(done > 0, (span - epoch) * per_epoch, 1.0)
    return Progress(done, left)


def between(start: Any, end: Any, at: Progress) -> Array:
    """Return the rate on the way from ``start`` to ``end``, a straight line of the shares."""
    return start * at.left + end * at.done


def cosine(at: Progress, xp: ModuleType) -> Progress:
    """Bend the shares to half a wave of a cosine.

    With ``sin(x)**2``, since ``1 + cos(x)`` cancels near the end.
    """
    quarter = xp.pi / 2
    return Progress(xp.sin(quarter * at.done) ** 2, xp.sin(quarter * at.left) ** 2)


def root(at: Progress, xp: ModuleType) -> Progress:
    """Bend the shares to the square root of the share that is done.

    The other share is ``1 - sqrt(done)``, which cancels as it stands.
    """
    done = xp.sqrt(at.done)
    return Progress(done, at.left / (1 + done))


def polynomial(at: Progress, power: float) -> Progress:
    """Bend the shares to a power of the share that is left."""
    left = at.left**power
    return Progress(1 - left, left)


STRATEGIES = ["linear", "cos", "sqrt", "exponential", "polynomial"]


def fall(start: Any, end: Any, at: Progress, strategy: str, power: float, xp: ModuleType) -> Array:
    """Return the rate on the way from ``start`` to ``end`` by one of ``STRATEGIES``."""
    if strategy == "exponential":
        return start**at.left * end**at.done
    if strategy == "polynomial":
        at = polynomial(at, power)
    elif strategy != "linear":
        at = cosine(at, xp) if strategy == "cos" else root(at, xp)
    return between(start, end, at)
