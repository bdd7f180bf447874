"""Train over several devices, and over several processes, and save and restore through Orbax.

    python integration_tests/device_run.py FOLDER NAME BEGIN END [PROCESS PROCESSES PORT]

Trains epochs BEGIN to END. A run that begins at 0 saves to ``FOLDER/checkpoint`` at its end; one
that begins later restores from there, whatever devices it has. ``FOLDER/NAME.PROCESS`` then holds
the process's position, the rates that it applied, and the weights.
"""

import pickle
import sys
from pathlib import Path
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

import brainsched

BOUNDARIES = [3, 5]
VALUES = [1.0, 0.3, 0.03]


def main(folder: Path, name: str, begin: int, end: int, process: int) -> None:
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    replicated = NamedSharding(mesh, PartitionSpec())
    sharded = NamedSharding(mesh, PartitionSpec("data"))

    body = brainstate.ParamState(jnp.linspace(-1.0, 1.0, 16))
    head = brainstate.ParamState(jnp.ones(()))
    weights = {"body": body, "head": head}
    scheduler = brainsched.PiecewiseConstantSchedule(0.1, BOUNDARIES, VALUES)
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"body": body})
    optimizer.add_param_group({"head": head}, lr=0.2)

    # The body's weights and their moments are sharded; what is scalar, the scheduler's States
    # among it, is replicated over the same mesh.
    def place(value: Any) -> Any:
        def placed(leaf: Any) -> jax.Array:
            return jax.device_put(leaf, sharded if np.ndim(leaf) else replicated)

        return jax.tree.map(placed, value)

    for state in [*brainstate.graph.states(optimizer).values(), *weights.values()]:
        state.value = place(state.value)

    def parts() -> dict[str, object]:
        # Only arrays: the scheduler's States through the graph, as every process holds them.
        return {
            "weights": {key: weight.value for key, weight in weights.items()},
            "states": {
                ".".join(map(str, key)): state.value
                for key, state in brainstate.graph.states(optimizer).items()
            },
        }

    if begin:
        with ocp.CheckpointManager(folder / "checkpoint") as checkpoints:
            target = parts()
            arguments = ocp.checkpoint_utils.construct_restore_args(target)
            saved = checkpoints.restore(0, args=ocp.args.PyTreeRestore(target, arguments))
        for key, weight in weights.items():
            weight.value = saved["weights"][key]
        for key, state in brainstate.graph.states(optimizer).items():
            state.value = saved["states"][".".join(map(str, key))]

    traced = []

    @brainstate.transform.jit
    def update(x: jax.Array) -> Any:
        traced.append(1)
        applied = scheduler.get_last_lr()

        def loss() -> jax.Array:
            return ((x @ body.value * head.value - x.sum(axis=1)) ** 2).mean()

        optimizer.step(brainstate.transform.grad(loss, weights)())
        scheduler.step()
        return applied

    assert scheduler.epoch == begin
    rates = []
    for epoch in range(begin, end):
        batch = np.random.default_rng(epoch).normal(size=(8, 16)).astype(np.float32)
        x = jax.make_array_from_callback(batch.shape, sharded, batch.__getitem__)
        if epoch == begin:  # compiling moves constants
            rates.append(update(x))
        else:
            with jax.transfer_guard("disallow"):
                rates.append(update(x))
    assert traced == [1]
    assert body.value.sharding == sharded
    assert scheduler.last_epoch.value.sharding == replicated
    shardings = jax.tree.map(lambda rate: rate.sharding, scheduler.get_last_lr())
    assert shardings == [replicated] * 2

    if not begin:
        with ocp.CheckpointManager(folder / "checkpoint") as checkpoints:
            checkpoints.save(0, args=ocp.args.PyTreeSave(parts()))
    result = {
        "devices": jax.device_count(),
        "epoch": scheduler.epoch,
        "rates": [[np.asarray(rate) for rate in applied] for applied in rates],
        "weights": {
            key: np.asarray(jax.device_put(weight.value, replicated))
            for key, weight in weights.items()
        },
    }
    (folder / f"{name}.{process}").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    place, run_name, first, last, *distributed = sys.argv[1:]
    number = 0
    if distributed:
        number, processes, port = map(int, distributed)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, number)
    main(Path(place).resolve(), run_name, int(first), int(last), number)
