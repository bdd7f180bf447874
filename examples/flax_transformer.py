"""Train a small transformer, in Flax NNX, on the text of Python's own manual.

    python examples/flax_transformer.py --folder runs/transformer

It predicts the next character. Each layer has a rate of its own, lower the farther it is from the
head, and all rates rise and fall at every update. The run may be stopped at any moment: start it
again with the same command, and it goes on, to the same bits.
"""

import argparse
import time
from pathlib import Path
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx

import brainsched

EPOCHS = 10
UPDATES_PER_EPOCH = 60
BATCH_SIZE = 32
CONTEXT = 64  # characters
WIDTH = 64
HEADS = 4
BLOCKS = 3
PEAK_RATE = 4e-3
LAYER_DECAY = 0.8
WEIGHT_DECAY = 0.1
SEED = 0
# From the input to the output, each by the paths of its parameters.
LAYERS = [
    ["embedding/*", "position/*"],
    *(f"blocks/{i}/*" for i in range(BLOCKS)),
    ["head/*", "norm/*"],
]


class Block(nnx.Module):
    """Attention to the characters so far, and a layer on each of them, both added to the stream."""

    def __init__(self, rngs):
        self.before_attention = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            HEADS, WIDTH, use_bias=False, decode=False, rngs=rngs
        )
        self.before_layer = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x, mask):
        """Return the stream of shape (batch, context, width) after this block."""
        x = x + self.attention(self.before_attention(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.before_layer(x))))


class Transformer(nnx.Module):
    """A model of the next character."""

    def __init__(self, characters, rngs):
        self.embedding = nnx.Embed(characters, WIDTH, rngs=rngs)
        self.position = nnx.Embed(CONTEXT, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(BLOCKS)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, characters, rngs=rngs)

    def __call__(self, text):
        """Return the logits of what follows each character of a text of shape (batch, context)."""
        x = self.embedding(text) + self.position(jnp.arange(text.shape[1]))
        mask = nnx.make_causal_mask(text)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


def is_matrix(weights):
    """Mark what weight decay is for: no bias, and no scale of a norm."""
    return jax.tree.map(lambda weight: weight.ndim > 1, weights)


def main():
    """Train, save after every epoch, and log the rates of every group."""
    arguments = parse_arguments()
    started = time.perf_counter()

    text = "\n".join(topics[name] for name in sorted(topics))
    characters, numbers = np.unique(list(text), return_inverse=True)
    codes = jnp.asarray(numbers, jnp.int32)
    held_out = codes[-64 * (CONTEXT + 1) :].reshape(64, CONTEXT + 1)
    codes = codes[: -held_out.size]

    model = Transformer(len(characters), nnx.Rngs(SEED))
    base_lr, groups = brainsched.layerwise_decay(PEAK_RATE, LAYER_DECAY, LAYERS)
    schedule = brainsched.WarmupCosineSchedule(
        base_lr, warmup_steps=1, total_steps=arguments.epochs
    )
    optimizer = nnx.Optimizer(
        model,
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(b2=0.98),
            optax.add_decayed_weights(WEIGHT_DECAY, mask=is_matrix),  # the rate scales it, too
            brainsched.scale_by_scheduler(schedule, groups, arguments.updates),
        ),
        wrt=nnx.Param,
    )

    def loss_of(model, passages):
        logits = model(passages[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, passages[:, 1:]).mean()

    def train_step(state, starts):
        model, optimizer = state
        passages = codes[starts[:, None] + jnp.arange(CONTEXT + 1)]
        loss, gradients = nnx.value_and_grad(loss_of)(model, passages)
        optimizer.update(model, gradients)
        return state, loss

    @nnx.jit
    def train_epoch(model, optimizer, starts):
        _, losses = nnx.scan(train_step)((model, optimizer), starts)
        return losses.mean(), loss_of(model, held_out)

    def starts_of(epoch):
        # A function of the epoch alone, so that a resumed run sees the same text.
        starts = np.random.default_rng([SEED, epoch]).integers(
            len(codes) - CONTEXT, size=(arguments.updates, BATCH_SIZE)
        )
        return jnp.asarray(starts)

    def state():
        return nnx.to_pure_dict(nnx.state((model, optimizer)))

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
            restored = nnx.state((model, optimizer))
            nnx.replace_by_pure_dict(restored, saved["state"])
            nnx.update((model, optimizer), restored)
            brainsched.check_resumed(  # it warns if the schedule changed
                optimizer.opt_state, schedule, steps_per_epoch=arguments.updates
            )
            history = saved["history"]
            print(f"resumed after {len(history)} epochs")

        for epoch in range(len(history), arguments.epochs):
            loss, held_out_loss = train_epoch(model, optimizer, starts_of(epoch))
            rates = brainsched.rates_by_name(optimizer.opt_state, schedule)
            history.append(
                {
                    "epoch": epoch,
                    "loss": float(loss),
                    "held_out_loss": float(held_out_loss),
                    "rates": {name: float(rate) for name, rate in rates.items()},
                }
            )
            print(line(history[-1]), flush=True)
            # A copy of the list: Orbax writes in the background, when it may have grown already.
            parts = {
                "state": ocp.args.PyTreeSave(state()),
                "history": ocp.args.JsonSave([*history]),
            }
            checkpoints.save(epoch, args=ocp.args.Composite(**parts))

    print(f"wall time {time.perf_counter() - started:.1f} s, compilation included")


def line(entry):
    """Return an epoch's losses, in nats a character, and the last rate of each group, as text."""
    rates = ", ".join(f"{name} {rate:.2e}" for name, rate in entry["rates"].items())
    losses = f"loss {entry['loss']:.4f}, held-out loss {entry['held_out_loss']:.4f}"
    return f"epoch {entry['epoch']}: {losses}; rates: {rates}"


def parse_arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default="runs/transformer", help="of checkpoints")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="how many in all")
    parser.add_argument("--updates", type=int, default=UPDATES_PER_EPOCH, help="in an epoch")
    return parser.parse_args()


if __name__ == "__main__":
    main()
