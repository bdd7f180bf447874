"""Train a brainstate network on scikit-learn's handwritten digits under a three-stage schedule.

    python examples/digits.py            # from the start
    python examples/digits.py --resume   # from the last checkpoint, after an interruption

The body and the head of the network are two param groups, each with a rate of its own. A
checkpoint is saved after every epoch, and a resumed run ends with the same bits as one that was
never stopped. A picture of rate and accuracy goes to the output folder.
"""

import argparse
import itertools
import shutil
import time
from pathlib import Path

import brainstate
import braintools
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import brainsched

EPOCHS = 30
BATCH_SIZE = 32
SEED = 0
BOUNDARIES = [15, 25]
VALUES = [1.0, 0.3, 0.03]


class Network(brainstate.nn.Module):
    """Two hidden layers, the body, and a linear read-out, the head."""

    def __init__(self):
        super().__init__()
        self.body = brainstate.nn.Sequential(
            brainstate.nn.Linear(64, 128),
            brainstate.nn.ReLU(),
            brainstate.nn.Linear(128, 128),
            brainstate.nn.ReLU(),
        )
        self.head = brainstate.nn.Linear(128, 10)

    def update(self, x):
        """Return the logits of images of shape (batch, 64)."""
        return self.head(self.body(x))


def parameters(name, module):
    """Return a module's parameters by their names in a checkpoint, as ``body.layers.0.weight``."""
    found = module.states(brainstate.ParamState)
    return {".".join([name, *map(str, path)]): parameter for path, parameter in found.items()}


def main():
    """Train, save after every epoch, and show what came of it."""
    arguments = parse_arguments()
    started = time.perf_counter()
    console = Console()

    images, labels = load_digits(return_X_y=True)
    x, x_test, y, y_test = map(
        jnp.asarray,
        train_test_split(
            images.astype(np.float32) / 16,
            labels,
            test_size=0.2,
            random_state=SEED,
            stratify=labels,
        ),
    )
    brainstate.random.seed(SEED)
    model = Network()
    body, head = parameters("body", model.body), parameters("head", model.head)
    weights = body | head

    scheduler = brainsched.PiecewiseConstantSchedule(2e-3, BOUNDARIES, VALUES)
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights(body)
    optimizer.add_param_group(head, lr=1e-3)

    def train_step(batch):
        def loss():
            return braintools.metric.softmax_cross_entropy_with_integer_labels(
                model(x[batch]), y[batch]
            ).mean()

        gradients, value = brainstate.transform.grad(loss, weights, return_value=True)()
        optimizer.step(gradients)
        return value

    @brainstate.transform.jit
    def train_epoch(batches):
        losses = brainstate.transform.for_loop(train_step, batches)
        accuracy = (model(x_test).argmax(axis=-1) == y_test).mean()
        return losses.mean(), accuracy

    def batches_of(epoch):
        # A function of the epoch alone, so that a resumed run shuffles as the first one did.
        order = np.random.default_rng([SEED, epoch]).permutation(len(x))
        return jnp.asarray(order[: len(x) // BATCH_SIZE * BATCH_SIZE].reshape(-1, BATCH_SIZE))

    def state():
        return {
            "weights": {key: weight.value for key, weight in weights.items()},
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        }

    folder = arguments.output.resolve() / "checkpoints"
    if not arguments.resume:
        shutil.rmtree(folder, ignore_errors=True)
    history = []
    with ocp.CheckpointManager(
        folder, options=ocp.CheckpointManagerOptions(max_to_keep=2)
    ) as saved:
        if (latest := saved.latest_step()) is not None:
            target = state()
            restore = ocp.args.PyTreeRestore(
                target, ocp.checkpoint_utils.construct_restore_args(target)
            )
            checkpoint = saved.restore(
                latest, args=ocp.args.Composite(state=restore, history=ocp.args.JsonRestore())
            )
            for key, weight in weights.items():
                weight.value = checkpoint["state"]["weights"][key]
            optimizer.load_state_dict(checkpoint["state"]["optimizer"])
            scheduler.load_state_dict(checkpoint["state"]["scheduler"])
            history = checkpoint["history"]
            console.print(f"resumed after {scheduler.epoch} epochs")

        for epoch in track(range(scheduler.epoch, arguments.epochs), "training", console=console):
            rates = [float(rate) for rate in scheduler.get_last_lr()]
            loss, accuracy = train_epoch(batches_of(epoch))
            scheduler.step()
            history.append(
                {
                    "epoch": epoch,
                    "rates": rates,
                    "loss": float(loss),
                    "accuracy": float(accuracy),
                }
            )
            # Saved after the scheduler's step: the checkpoint stands at the epoch that comes next.
            # A copy of the list: Orbax writes in the background, when it may have grown already.
            saved.save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state()), history=ocp.args.JsonSave([*history])
                ),
            )

    console.print(table(history))
    picture = arguments.output / "digits.png"
    plot(history, picture)
    console.print(f"test accuracy {history[-1]['accuracy']:.2%}, picture in {picture}")
    console.print(f"wall time {time.perf_counter() - started:.1f} s, compilation included")


def parse_arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="how many in all")
    parser.add_argument("--output", type=Path, default=Path("runs/digits"), help="a folder")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint, if there is one"
    )
    return parser.parse_args()


def stages_of(history):
    """Split the history at the boundaries that it has reached."""
    edges = [0, *BOUNDARIES, len(history)]
    return [part for begin, end in itertools.pairwise(edges) if (part := history[begin:end])]


def table(history):
    """Return a table with a row for each stage."""
    result = Table("stage", "epochs", "body rate", "head rate", "loss", "test accuracy")
    for stage, part in enumerate(stages_of(history)):
        last = part[-1]
        result.add_row(
            str(stage),
            f"{part[0]['epoch']}-{last['epoch']}",
            *(f"{rate:.2e}" for rate in last["rates"]),
            f"{last['loss']:.4f}",
            f"{last['accuracy']:.2%}",
        )
    return result


def plot(history, path):
    """Draw the rates and the test accuracy over the epochs."""
    epochs = [entry["epoch"] for entry in history]
    figure = Figure(figsize=(7, 5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    for group, name in enumerate(["body", "head"]):
        rates = [entry["rates"][group] for entry in history]
        upper.step(epochs, rates, where="post", label=name)
    upper.set(yscale="log", ylabel="learning rate", title="Handwritten digits, three stages")
    upper.legend()
    lower.plot(epochs, [100 * entry["accuracy"] for entry in history], color="tab:green")
    lower.set(ylabel="test accuracy (%)", xlabel="epoch", ylim=(90, 100))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        for boundary in BOUNDARIES:
            axes.axvline(boundary, color="grey", linestyle="--", linewidth=1)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
