"""Count what a schedule adds to a training step over 8 devices, and to its checkpoint.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python integration_tests/scale_run.py FOLDER

Prints a JSON object: the collective operations of the step's program with the schedule and
without, the bytes of the scheduler's States, the bytes that Orbax writes of a value of 4 MB that
every device holds, and what is said of the rates of 8 runs, split among the devices, of which one
is negative.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import brainsched
from brainsched.link.states import Rates

GROUPS = 3
COLLECTIVE = re.compile(r" (all-\w+|reduce-scatter|collective-\w+)(-start)?\(")

mesh = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Explicit,))
replicated = NamedSharding(mesh, PartitionSpec())
x = jax.device_put(np.ones((64, 16), np.float32), NamedSharding(mesh, PartitionSpec("data")))


def collectives(scheduler: Any, stepped: bool) -> int:
    """Return how many times devices exchange something in a compiled training step."""
    weights = [brainstate.ParamState(jnp.ones(16)) for _ in range(GROUPS)]
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({0: weights[0]})
    for group in range(1, GROUPS):
        optimizer.add_param_group({group: weights[group]})
    for state in [*brainstate.graph.states(optimizer).values(), *weights]:
        state.value = jax.device_put(state.value, replicated)

    @brainstate.transform.jit
    def step(x: jax.Array) -> None:
        loss = lambda: sum(((x @ weight.value) ** 2).mean() for weight in weights)  # noqa: E731
        optimizer.step(brainstate.transform.grad(loss, dict(enumerate(weights)))())
        if stepped:
            scheduler.step()

    return len(COLLECTIVE.findall(step.lower(x).compile().as_text()))


def bytes_written(folder: Path) -> int:
    """Save 4 MB that every device holds, and return the size of the files."""
    values = np.random.default_rng(0).normal(size=2**20).astype(np.float32)
    with ocp.CheckpointManager(folder.resolve()) as checkpoints:
        checkpoints.save(0, args=ocp.args.PyTreeSave({"all": jax.device_put(values, replicated)}))
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def complaint_of_rates_that_are_split() -> str:
    """Set the rates of a sweep, a run on each device, and return the error."""
    split = NamedSharding(mesh, PartitionSpec("data"))
    rates = np.full(jax.device_count(), 0.5, np.float32)
    scheduler = brainsched.StepLR(0.5)
    home = scheduler.current_lrs
    home.restore_value(Rates([jax.device_put(rates, split)], home.value.link))  # as of a sweep
    rates[-1] = -0.5
    try:
        scheduler.current_lrs.value = [jax.device_put(rates, split)]
    except ValueError as error:
        return str(error)
    return "none"


if __name__ == "__main__":
    base_lrs = [0.1] * GROUPS
    schedule = brainsched.WarmupCosineSchedule(base_lrs, 5, 90)
    states = [state.value for state in brainstate.graph.states(schedule).values()]
    result = {
        "with": collectives(schedule, stepped=True),
        "without": collectives(brainsched.ConstantLR(base_lrs, 1.0, 0), stepped=False),
        "bytes": sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(states)),
        "written": bytes_written(Path(sys.argv[1])),
        "complaint": complaint_of_rates_that_are_split(),
    }
    print(json.dumps(result))
