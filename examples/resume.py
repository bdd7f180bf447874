"""A run that may be stopped at any moment: start it again with the same command, and it goes on.

    python examples/resume.py --folder runs/resume

Orbax saves everything after each epoch, and names a checkpoint once it is complete.
"""

import argparse
from pathlib import Path

import brainstate
import braintools
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

import brainsched

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--folder", type=Path, default="runs/resume")
parser.add_argument("--epochs", type=int, default=40)
arguments = parser.parse_args()
# Build everything as if the run began here: the seed makes the first weights the same each time.
brainstate.random.seed(0)
model = brainstate.nn.Linear(8, 1)
weights = {"linear": model.states(brainstate.ParamState)[("weight",)]}
scheduler = brainsched.PiecewiseConstantSchedule(0.1, boundaries=[20, 30], values=[1.0, 0.1, 0.01])
optimizer = braintools.optim.Adam(lr=scheduler)
optimizer.register_trainable_weights(weights)


@brainstate.transform.jit
def train_step(x):
    """Fit the sum of the inputs."""
    y = x.sum(axis=1, keepdims=True)
    gradients = brainstate.transform.grad(lambda: ((model(x) - y) ** 2).mean(), weights)()
    optimizer.step(gradients)


def batch_of(epoch):
    """Depend on the epoch alone, so that a resumed run sees the same data."""
    return jnp.asarray(np.random.default_rng(epoch).normal(size=(64, 8)), jnp.float32)


def state():
    """Return all that a checkpoint holds, but for the history."""
    return {
        "weights": {name: weight.value for name, weight in weights.items()},
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }


history = []
options = ocp.CheckpointManagerOptions(max_to_keep=2)
with ocp.CheckpointManager(arguments.folder.resolve(), options=options) as checkpoints:
    if (latest := checkpoints.latest_step()) is not None:
        target = state()  # says what shapes, types and shardings to restore
        shardings = ocp.checkpoint_utils.construct_restore_args(target)
        restore = ocp.args.PyTreeRestore(target, shardings)
        saved = checkpoints.restore(
            latest, args=ocp.args.Composite(state=restore, history=ocp.args.JsonRestore())
        )
        for name, weight in weights.items():
            weight.value = saved["state"]["weights"][name]
        optimizer.load_state_dict(saved["state"]["optimizer"])
        scheduler.load_state_dict(saved["state"]["scheduler"])
        history = saved["history"]
        print(f"resumed at epoch {scheduler.epoch}")

    for epoch in range(scheduler.epoch, arguments.epochs):
        train_step(batch_of(epoch))
        history.append({"epoch": epoch, "rate": float(scheduler.get_last_lr()[0])})
        scheduler.step()  # before saving: a checkpoint stands at the epoch that comes next
        # A copy of the list: Orbax writes in the background, when it may have grown already.
        parts = {"state": ocp.args.PyTreeSave(state()), "history": ocp.args.JsonSave([*history])}
        checkpoints.save(epoch, args=ocp.args.Composite(**parts))

print(f"{len(history)} epochs, {scheduler}")
