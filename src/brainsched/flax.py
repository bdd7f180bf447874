"""Let ``flax.serialization`` save and restore schedulers: importing this module does it.

``to_state_dict``, ``from_state_dict``, ``to_bytes`` and ``from_bytes`` then take a scheduler of
any class, those defined later too, alone or inside a larger tree. As everywhere in Flax, what is
restored is a new object and the target stays as it was: a copy of the target, without its
optimizer, at the saved position. To restore a scheduler in the optimizer that it is in, use
``scheduler.load_state_dict``.

Examples
--------
>>> import brainsched, brainsched.flax, flax.serialization
>>> scheduler, target = (brainsched.StepLR(0.5) for _ in range(2))
>>> scheduler.step(7)
>>> saved = flax.serialization.to_bytes(scheduler)
>>> flax.serialization.from_bytes(target, saved).epoch, target.epoch
(7, 0)
"""

import copy
from typing import Any

from flax import serialization

from brainsched.core import config as configuring
from brainsched.core.scheduler import LRScheduler


def _to_state_dict(scheduler: LRScheduler) -> dict[str, Any]:
    return serialization.to_state_dict(scheduler.state_dict())


def _from_state_dict(target: LRScheduler, state_dict: dict[str, Any]) -> LRScheduler:
    restored = copy.deepcopy(target)
    restored.load_state_dict(state_dict)
    return restored


configuring.for_every_class(
    lambda cls: serialization.register_serialization_state(cls, _to_state_dict, _from_state_dict)
)
