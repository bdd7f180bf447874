"""What the checkpoints of braintools 0.3.0 hold, by the name of the class that saved them."""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainsched.core.scheduler import LRScheduler

_SIMPLE = ("last_epoch", "base_lrs", "current_lrs")

# Where braintools' class of a name saves more, or other, than the simple schedules do.
_KEYS = {
    "CosineAnnealingWarmRestarts": (*_SIMPLE, "T_cur", "T_i"),
    "ReduceLROnPlateau": (*_SIMPLE, "best", "num_bad_epochs", "cooldown_counter"),
    "SequentialLR": ("last_epoch", "schedulers", "milestones", "current_scheduler_idx"),
    "ChainedScheduler": ("last_epoch", "schedulers"),
}


def keys(scheduler: "LRScheduler") -> tuple[str, ...]:
    """Return the keys of what braintools' class of the same name saves."""
    return _KEYS.get(type(scheduler).__name__, _SIMPLE)


def missing_memory(scheduler: "LRScheduler", applied: list[float]) -> dict[str, Any]:
    """Return what braintools does not save, worked out from the applied rates.

    That is how often ReduceLROnPlateau has reduced the rate.
    """
    if type(scheduler).__name__ != "ReduceLROnPlateau":
        return {}
    base, factor = float(scheduler.base_lrs[0]), float(scheduler.factor)
    times = math.log(applied[0] / base) / math.log(factor) if applied[0] and base else 0
    return {"reductions": max(round(times), 0)}
