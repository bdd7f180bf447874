"""Save every scheduler in mid-course: ``python integration_tests/saved_schedulers.py OUT.json``.

``data/schedulers_0.1.0.json`` was written by version 0.1.0; what it holds must load for ever.
"""

import json
import sys
from typing import Any

import jax
import numpy as np

import brainsched as bs

GROUPS = [0.5, 0.25]

# Each with its constructor's arguments, so that nothing depends on a default that may change
BUILT = {
    "PiecewiseConstantSchedule": lambda: bs.PiecewiseConstantSchedule(
        GROUPS, [3, 9], [1, 0.5, 0.1]
    ),
    "StepLR": lambda: bs.StepLR(GROUPS, 5, 0.5),
    "MultiStepLR": lambda: bs.MultiStepLR(GROUPS, [3, 9], 0.5),
    "ConstantLR": lambda: bs.ConstantLR(GROUPS, 0.5, 9),
    "LinearLR": lambda: bs.LinearLR(GROUPS, 0.25, 1.0, 9),
    "PolynomialLR": lambda: bs.PolynomialLR(GROUPS, 20, 2.0),
    "ExponentialLR": lambda: bs.ExponentialLR(GROUPS, 0.9),
    "ExponentialDecayLR": lambda: bs.ExponentialDecayLR(GROUPS, 10, 0.5),
    "CosineAnnealingLR": lambda: bs.CosineAnnealingLR(GROUPS, 20, 0.01),
    "CosineAnnealingWarmRestarts": lambda: bs.CosineAnnealingWarmRestarts(GROUPS, 3, 2, 0.01),
    "WarmupScheduler": lambda: bs.WarmupScheduler(GROUPS, 9),
    "WarmupCosineSchedule": lambda: bs.WarmupCosineSchedule(GROUPS, 5, 20),
    "WSD": lambda: bs.WSD(GROUPS, 3, 3, 9),
    "CyclicLR": lambda: bs.CyclicLR(GROUPS, [1.0, 2.0], 4),
    "OneCycleLR": lambda: bs.OneCycleLR(GROUPS, 20),
    "SequentialLR": lambda: bs.SequentialLR(
        [bs.WarmupScheduler(GROUPS, 5), bs.CosineAnnealingLR(GROUPS, 15)], [5]
    ),
    "ChainedScheduler": lambda: bs.ChainedScheduler(
        [bs.ConstantLR(GROUPS, 0.5, 9), bs.ExponentialLR(GROUPS, 0.9)]
    ),
    "ReduceLROnPlateau": lambda: bs.ReduceLROnPlateau(GROUPS, "min", 0.5, 1),
}


def run(name: str) -> Any:
    """Return a scheduler after seven steps, with a rate set by hand for its second group."""
    scheduler = BUILT[name]()
    for epoch in range(7):
        scheduler.step(*([1.0 + epoch % 2] if name == "ReduceLROnPlateau" else []))
    rates = scheduler.get_last_lr()
    scheduler.current_lrs.value = [rates[0], 0.125]
    return scheduler


if __name__ == "__main__":
    saved = {name: run(name).state_dict() for name in BUILT}
    plain = jax.tree.map(lambda x: x.tolist() if isinstance(x, np.ndarray) else x, saved)
    with open(sys.argv[1], "w") as file:
        json.dump(plain, file, indent=1)
