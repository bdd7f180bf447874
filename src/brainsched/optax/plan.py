"""A schedule's plan in a few numbers, which the state of an optimizer can carry.

Checkpoints of optax and Flax hold arrays alone, of shapes that must not depend on the schedule: so
a plan is an array of fixed length. An entry is an argument, where that is one number, and else a
checksum of it, which is negative: arguments are not. NaN is what cannot be known, such as a traced
rate, and is equal to everything.
"""

import inspect
import json
import math
import weakref
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from brainsched.core import arguments
from brainsched.core import config as configuring
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules.per_update import PerUpdate

SIZE = 32

_UNKNOWN = math.nan


def fingerprint(
    scheduler: LRScheduler, groups: int, steps_per_epoch: int, staircase: bool
) -> np.ndarray:
    """Return the numbers that tell the plan, in float32."""
    numbers = [number for _, number in _entries(scheduler, groups, steps_per_epoch, staircase)]
    padded = [*numbers, *(0.0 for _ in range(SIZE - len(numbers)))]
    return np.asarray(padded, np.float32)


def changes(
    saved: np.ndarray, scheduler: LRScheduler, groups: int, steps_per_epoch: int, staircase: bool
) -> list[str]:
    """Return what differs from a fingerprint that was saved: names, with what is known of it."""
    found: list[str] = []
    entries = _entries(scheduler, groups, steps_per_epoch, staircase)
    for (name, number), before in zip(entries, saved.tolist(), strict=False):
        now = float(np.float32(number))
        if now == before or math.isnan(now) or math.isnan(before):
            continue
        if name.endswith("class"):  # its arguments are others, too
            return [*found, f"{name} ({_class_of(before)} -> {_class_of(now)})"]
        readable = now >= 0 and before >= 0
        found.append(f"{name} ({before:.6g} -> {now:.6g})" if readable else name)
    return found


def branch_of(
    saved: np.ndarray, scheduler: LRScheduler, groups: int, steps_per_epoch: int, staircase: bool
) -> tuple[Any, int] | None:
    """Return the branch or extension whose old schedule was saved, where ``scheduler`` has one.

    With it comes how many updates make an epoch of it.
    """
    branch: Any
    branch, steps_per_epoch, staircase = _said_outside(scheduler, steps_per_epoch, staircase)
    while branch._trunk is not None:
        if not changes(saved, branch._trunk, groups, steps_per_epoch, staircase):
            return branch, steps_per_epoch
        branch = branch._trunk
    return None


_bridged: "weakref.WeakKeyDictionary[LRScheduler, tuple[int, bool]]" = weakref.WeakKeyDictionary()


def remember(scheduler: LRScheduler, steps_per_epoch: int, staircase: bool) -> None:
    """Take note of how the code stretches ``scheduler``, which the scheduler does not tell."""
    _bridged[scheduler] = (steps_per_epoch, staircase)


def stretching(scheduler: LRScheduler, saved: np.ndarray | None) -> tuple[int, bool]:
    """Return ``steps_per_epoch`` and ``staircase``: those noted last, or else those of a plan."""
    if scheduler in _bridged:
        return _bridged[scheduler]
    if saved is None or arguments.counts_updates(scheduler) is not None:
        return 1, False
    _, steps_per_epoch, staircase, *_ = saved.tolist()
    return int(steps_per_epoch), bool(staircase)


def _said_outside(
    scheduler: LRScheduler, steps_per_epoch: int, staircase: bool
) -> tuple[LRScheduler, int, bool]:
    """Return what a ``PerUpdate`` is of, and how it is stretched, which may be said either way."""
    if isinstance(scheduler, PerUpdate) and steps_per_epoch == 1:
        return scheduler.scheduler, scheduler.steps_per_epoch, scheduler.staircase
    return scheduler, steps_per_epoch, staircase


def _entries(
    scheduler: LRScheduler, groups: int, steps_per_epoch: int, staircase: bool
) -> list[tuple[str, float]]:
    scheduler, steps_per_epoch, staircase = _said_outside(scheduler, steps_per_epoch, staircase)
    entries = [
        ("number of param groups", float(groups)),
        ("steps_per_epoch", float(steps_per_epoch)),
        ("staircase", float(staircase and steps_per_epoch > 1)),
        *_described(scheduler, ""),
    ]
    if len(entries) > SIZE:
        rest = entries[SIZE - 1 :]
        entries[SIZE - 1 :] = [("further arguments", _checksum([number for _, number in rest]))]
    return entries


def _described(scheduler: LRScheduler, where: str) -> Iterator[tuple[str, float]]:
    """Yield the class and the arguments of a scheduler, and those of its parts."""
    yield f"{where}class", _class_checksum(type(scheduler))
    for name in arguments.parameters(type(scheduler)):
        value = getattr(scheduler, name)
        parts = value if isinstance(value, Sequence) else [value]
        if name == "last_epoch":  # is where it begins, and no part of the plan
            continue
        if any(isinstance(part, LRScheduler) for part in parts):
            yield f"{where}number of {name}", float(len(parts))
            for i, part in enumerate(parts):
                index = f"[{i}]" if parts is value else ""
                yield from _described(part, f"{where}{name}{index}.")
        else:
            yield f"{where}{name}", _number(value)


def _class_checksum(cls: type[LRScheduler]) -> float:
    # arguments.parameters refuses a class that cannot be rebuilt, which is known all the same.
    return _checksum([configuring.name_of(cls), *inspect.signature(cls).parameters])


def _class_of(checksum: float) -> str:
    """Return the name of the class that has this checksum, where one is known."""
    known = configuring.classes()
    return next(
        (name for name, cls in known.items() if _class_checksum(cls) == checksum), "another"
    )


def _number(value: Any) -> float:
    try:
        plain = configuring._plain("argument", value)
    except TypeError:  # it is traced, or an object of the user's, which has no form in a config
        return _UNKNOWN
    if isinstance(plain, bool | int | float) and plain >= 0:
        return float(plain)
    return _checksum(plain)


def _checksum(value: Any) -> float:
    """Return a negative integer of 24 bits, which float32 holds exactly."""
    return -1.0 - (zlib.crc32(json.dumps(value).encode()) >> 8)
