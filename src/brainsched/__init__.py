"""Learning-rate schedules for models trained with brainstate and Flax."""

from brainsched import schedules
from brainsched._base import LRScheduler
from brainsched._from_config import from_config
from brainsched._optax import scale_by_scheduler
from brainsched.schedules import *  # noqa: F403  (the classes that it lists)
from brainsched.schedules.branch import cooldown, rewarm

__version__ = "0.1.0"

__all__ = [
    "LRScheduler",
    "cooldown",
    "from_config",
    "rewarm",
    "scale_by_scheduler",
    *schedules.__all__,
]
