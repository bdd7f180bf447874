r"""Train on several machines, each with several devices, and go on with another number of them.

    python examples/many_machines.py    # in small: its own processes, on this machine

    python examples/many_machines.py --folder /shared/run --coordinator HOST:PORT \
        --processes 16 --process 0      # ... and 1 to 15, each on a machine that sees /shared

Without arguments, two processes of two devices train four epochs, and one process of eight devices
continues from their checkpoint. Every process computes the same rates from the same position, so
nothing about the schedule is sent between them. It prints:

    processes: 2, devices: 4, epoch: 0
    compiling an epoch
    process 0, body: 0.002 0.002 0.002 0.0006
    process 0, head: 0.004 0.004 0.004 0.0012
    split among the devices: 6 arrays, 227328 bytes in all
    replicated, on each device: 16 arrays, 3232 bytes, of which position and rates are 12
    in the checkpoint: 22 arrays, in files of 235 kB
    process 1, body: 0.002 0.002 0.002 0.0006
    process 1, head: 0.004 0.004 0.004 0.0012
    processes: 1, devices: 8, epoch: 4
    compiling an epoch
    process 0, body: 0.0006 6e-05 6e-05 6e-05
    process 0, head: 0.0012 0.00012 0.00012 0.00012
    split among the devices: 6 arrays, 227328 bytes in all
    replicated, on each device: 16 arrays, 3232 bytes, of which position and rates are 12
    in the checkpoint: 22 arrays, in files of 244 kB
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import brainstate
import braintools
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import brainsched

EPOCHS = 8
UPDATES_PER_EPOCH = 20
BATCH_SIZE = 64
GROUPS = {"body": 2e-3, "head": 4e-3}  # the base rates


def main():
    """Train as one of the processes, or start all of them."""
    arguments = parse_arguments()
    if arguments.processes is None:
        demonstrate(arguments.folder)
        return
    if arguments.processes > 1:
        # Gloo, through which CPUs exchange gradients, writes to standard output: let it be another.
        sys.stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), 1)
        # Before anything asks for the devices. On a cluster that JAX knows, without arguments.
        jax.distributed.initialize(arguments.coordinator, arguments.processes, arguments.process)
    train(arguments.folder.resolve(), arguments.epochs)


def train(folder, epochs):
    """Train on all devices of all processes, from the last checkpoint on."""
    model, weights, scheduler, optimizer = build()
    mesh = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Explicit,))
    states = place(optimizer, mesh)
    digits = load_digits(return_X_y=True)

    @brainstate.transform.jit
    def train_epoch(images, labels):
        say("compiling an epoch")  # Python is only run to make the program

        def loss(x, y):
            cross_entropy = braintools.metric.softmax_cross_entropy_with_integer_labels
            return cross_entropy(model(x), y).mean()

        def update(batch):
            optimizer.step(brainstate.transform.grad(loss, weights)(*batch))

        brainstate.transform.for_loop(update, (images, labels))
        applied = scheduler.get_last_lr()
        scheduler.step()  # before saving: a checkpoint stands at the epoch that comes next
        return applied

    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    history = []
    with ocp.CheckpointManager(folder, options=options) as checkpoints:  # in every process
        if (latest := checkpoints.latest_step()) is not None:
            # The target says what to read, and its shardings where to: onto the devices of now.
            shardings = ocp.checkpoint_utils.construct_restore_args(values_of(states))
            restore = ocp.args.PyTreeRestore(values_of(states), shardings)
            for name, value in checkpoints.restore(latest, args=restore).items():
                states[name].value = value
        first = scheduler.epoch
        say(f"processes: {jax.process_count()}, devices: {jax.device_count()}, epoch: {first}")

        for epoch in range(first, epochs):
            batches = batches_of(epoch, digits, mesh)
            # Once it is compiled, an epoch moves nothing between the host and its devices.
            with jax.transfer_guard("allow" if epoch == first else "disallow"):
                rates = train_epoch(*batches)
            history.append(rates)
            checkpoints.save(epoch, args=ocp.args.PyTreeSave(values_of(states)))

    for group, rates in zip(GROUPS, np.asarray(history).T, strict=True):
        print(f"process {jax.process_index()}, {group}:", *rates)
    say(report(states, folder / str(epochs - 1)))


def build():
    """Return all that a run has, as if it began here: in every process the same."""
    brainstate.random.seed(0)
    body, head = brainstate.nn.Linear(64, 256), brainstate.nn.Linear(256, 10)
    model = brainstate.nn.Sequential(body, brainstate.nn.ReLU(), head)
    found = model.states(brainstate.ParamState)
    weights = {"body": found["layers", 0, "weight"], "head": found["layers", 2, "weight"]}
    scheduler = brainsched.PiecewiseConstantSchedule([*GROUPS.values()], [3, 5], [1.0, 0.3, 0.03])
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"body": weights["body"]})
    optimizer.add_param_group({"head": weights["head"]})
    return model, weights, scheduler, optimizer


def place(optimizer, mesh):
    """Place the States of an optimizer on the devices, and return them by name.

    They are its moments, the weights that it trains, and the position and rates of its scheduler.
    The rows of a matrix are split among the devices, and all else is on each of them.
    """
    split = NamedSharding(mesh, PartitionSpec("data"))
    on_each = NamedSharding(mesh, PartitionSpec())

    def placed(leaf):
        return jax.device_put(leaf, split if np.ndim(leaf) > 1 else on_each)

    states = brainstate.graph.states(optimizer)
    for state in states.values():
        state.value = jax.tree.map(placed, state.value)
    return {".".join(map(str, key)): state for key, state in states.items()}


def values_of(states):
    """Return what is saved: arrays alone, each as its devices hold it."""
    return {name: state.value for name, state in states.items()}


def batches_of(epoch, digits, mesh):
    """Return the images and labels of an epoch, each batch split among the devices.

    They depend on the epoch alone. A process hands on only the rows that its own devices hold.
    """
    images, labels = digits[0].astype(np.float32) / 16, digits[1]
    chosen = np.random.default_rng(epoch).choice(len(images), (UPDATES_PER_EPOCH, BATCH_SIZE))
    split = NamedSharding(mesh, PartitionSpec(None, "data"))

    return tuple(
        jax.make_array_from_callback(batches.shape, split, batches.__getitem__)
        for batches in (images[chosen], labels[chosen])
    )


def say(text):
    """Print something once, and not in every process."""
    if jax.process_index() == 0:
        print(text)


def report(states, checkpoint):
    """Return what lies where, and what a checkpoint holds of it, as text."""
    leaves = jax.tree.leaves(values_of(states))
    split = [leaf for leaf in leaves if not leaf.sharding.is_fully_replicated]
    on_each = [leaf for leaf in leaves if leaf.sharding.is_fully_replicated]
    schedule = [state.value for name, state in states.items() if name.startswith("_lr_scheduler")]
    files = [path.stat().st_size for path in checkpoint.rglob("*") if path.is_file()]
    return "\n".join(
        [
            f"split among the devices: {len(split)} arrays, {size_of(split)} bytes in all",
            f"replicated, on each device: {len(on_each)} arrays, {size_of(on_each)} bytes, "
            f"of which position and rates are {size_of(jax.tree.leaves(schedule))}",
            f"in the checkpoint: {len(leaves)} arrays, in files of {sum(files) / 1000:.0f} kB",
        ]
    )


def size_of(arrays):
    """Return the bytes of arrays, each counted once."""
    return sum(array.nbytes for array in arrays)


def demonstrate(folder):
    """Train four epochs on two processes of two devices, and the rest on one of eight."""
    with tempfile.TemporaryDirectory() as temporary:
        for printed in [
            *start_here(folder or temporary, epochs=4, processes=2, devices=2),
            *start_here(folder or temporary, epochs=EPOCHS, processes=1, devices=8),
        ]:
            print(printed, end="")


def start_here(folder, epochs, processes, devices):
    """Run some processes on this machine, each with some devices, and return what they print."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, __file__, f"--folder={folder}", f"--epochs={epochs}"]
    command += [f"--coordinator={coordinator}", f"--processes={processes}"]
    cpu = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    started = [
        subprocess.Popen(
            [*command, f"--process={number}"], env=cpu, stdout=subprocess.PIPE, text=True
        )
        for number in range(processes)
    ]
    printed = [process.communicate()[0] for process in started]
    statuses = [process.returncode for process in started]
    if any(statuses):
        sys.exit(f"a process failed, and said so above; the exit statuses are {statuses}")
    return printed


def parse_arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="of checkpoints, for all processes")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="how many in all")
    parser.add_argument("--processes", type=int, help="how many, if this is one of them")
    parser.add_argument("--process", type=int, default=0, help="the number of this one, from 0")
    parser.add_argument("--coordinator", help="HOST:PORT of process 0")
    arguments = parser.parse_args()
    if arguments.processes is not None and arguments.folder is None:
        parser.error("--processes needs a --folder")
    return arguments


if __name__ == "__main__":
    main()
