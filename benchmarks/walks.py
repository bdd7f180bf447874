"""The walk of a reader through a call: how many calls of the package, in how many files.

``python benchmarks/walks.py`` prints a line for each walk.
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import brainstate
import braintools
import jax.numpy as jnp

import brainsched

PACKAGE = str(Path(brainsched.__file__).parent)


def walk(function: Callable[[], Any]) -> tuple[int, list[str]]:
    """Return the number of calls of the package's functions, and the files that they are in."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            calls.append(str(Path(frame.f_code.co_filename).relative_to(PACKAGE)))

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(calls), sorted(set(calls))


def parameter() -> dict[str, brainstate.ParamState]:
    """Return a parameter under a name of its own."""
    return {f"w{next(numbers)}": brainstate.ParamState(jnp.ones(2))}


numbers = iter(range(1000))
warnings.simplefilter("error")
scheduler = brainsched.StepLR(0.1, 30)
optimizer = braintools.optim.SGD(lr=scheduler)
optimizer.register_trainable_weights(parameter())
optimizer.add_param_group(parameter(), lr=0.1)
scheduler.step()
for name, function in {
    "step()": scheduler.step,
    "StepLR(0.1, 30)": lambda: brainsched.StepLR(0.1, 30),
    "add_param_group(lr=)": lambda: optimizer.add_param_group(parameter(), lr=0.2),
    "state_dict()": scheduler.state_dict,
    "get_lr()": scheduler.get_lr,
}.items():
    number, files = walk(function)
    print(f"{name:22} {number:4d} calls in {len(files)} files: {', '.join(files)}")
