"""Train a Flax NNX network on scikit-learn's handwritten digits, body and head at their own rates.

    python examples/flax_digits.py
    python examples/flax_digits.py --checkpoints runs/flax_digits

The schedule is the one that brainstate users give to their optimizer; here optax carries its
position, so that a whole epoch runs under nnx.jit. The rates in use are read from the optimizer.
With a folder for checkpoints, model and optimizer are saved after every epoch, and the same command
goes on where the last one was saved; it warns if the schedule has changed since.
"""

import argparse
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import brainsched

EPOCHS = 30
BATCH_SIZE = 32
SEED = 0


class Network(nnx.Module):
    """Two hidden layers, the body, and a linear read-out, the head."""

    def __init__(self, rngs):
        self.body = nnx.Sequential(
            nnx.Linear(64, 128, rngs=rngs), nnx.relu, nnx.Linear(128, 128, rngs=rngs), nnx.relu
        )
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        """Return the logits of images of shape (batch, 64)."""
        return self.head(self.body(x))


def main():
    """Train, and print the rates and the test accuracy at the end of each stage."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="how many in all")
    parser.add_argument("--checkpoints", type=Path, help="the folder to save to and go on from")
    arguments = parser.parse_args()
    epochs = arguments.epochs
    started = time.perf_counter()

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32) / 16
    x, x_test, y, y_test = map(
        jnp.asarray,
        train_test_split(images, labels, test_size=0.2, random_state=SEED, stratify=labels),
    )
    steps_per_epoch = len(x) // BATCH_SIZE

    model = Network(nnx.Rngs(SEED))
    scheduler = brainsched.PiecewiseConstantSchedule(
        base_lr={"body": 2e-3, "head": 1e-3}, boundaries=[15, 25], values=[1.0, 0.3, 0.03]
    )
    groups = {"body/*": "body", "head/*": "head"}
    tx = optax.chain(
        optax.scale_by_adam(), brainsched.scale_by_scheduler(scheduler, groups, steps_per_epoch)
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    def train_step(state, batch):
        model, optimizer = state

        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(x[batch]), y[batch]).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return state, value

    @nnx.jit
    def train_epoch(model, optimizer, batches):
        _, losses = nnx.scan(train_step)((model, optimizer), batches)
        return losses.mean(), (model(x_test).argmax(axis=-1) == y_test).mean()

    first_epoch = 0
    if arguments.checkpoints is not None:
        manager = ocp.CheckpointManager(
            arguments.checkpoints.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2)
        )
        if manager.latest_step() is not None:
            saved = manager.restore(
                manager.latest_step(), args=ocp.args.StandardRestore(nnx.state((model, optimizer)))
            )
            nnx.update((model, optimizer), saved)
            brainsched.check_resumed(
                optimizer.opt_state, scheduler, steps_per_epoch=steps_per_epoch
            )
            first_epoch = manager.latest_step() + 1

    for epoch in range(first_epoch, epochs):
        # The order of an epoch's images depends on its number alone, so that a resumed run has it.
        order = np.random.default_rng((SEED, epoch)).permutation(len(x))
        batches = order[: steps_per_epoch * BATCH_SIZE].reshape(steps_per_epoch, BATCH_SIZE)
        loss, accuracy = train_epoch(model, optimizer, jnp.asarray(batches))
        if epoch + 1 in (*scheduler.boundaries, epochs):
            rates = brainsched.rates_by_name(optimizer.opt_state, scheduler)
            print(
                f"epoch {epoch}: "
                + "".join(f"{name} rate {rate:.2e}, " for name, rate in rates.items())
                + f"loss {loss:.4f}, test accuracy {accuracy:.2%}"
            )
        if arguments.checkpoints is not None:
            manager.save(epoch, args=ocp.args.StandardSave(nnx.state((model, optimizer))))
    if arguments.checkpoints is not None:
        manager.close()  # once all is written
    print(f"wall time {time.perf_counter() - started:.1f} s, compilation included")


if __name__ == "__main__":
    main()
