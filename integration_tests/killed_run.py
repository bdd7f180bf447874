"""Train, save through Orbax after every epoch, and go on where the last checkpoint is.

    python integration_tests/killed_run.py FOLDER EPOCHS

The program that ``kill_driver.py`` kills. It says when it has restored, and writes everything
that it came to into ``FOLDER/end``.
"""

import os
import pickle
import sys
from pathlib import Path

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

import brainsched

WEIGHTS = 500_000  # enough that saving takes a good part of the run


def main(folder: Path, epochs: int) -> None:
    body = brainstate.ParamState(jnp.linspace(-1.0, 1.0, WEIGHTS))
    head = brainstate.ParamState(jnp.ones(8))
    scheduler = brainsched.PiecewiseConstantSchedule(
        0.01, [epochs // 3, 2 * epochs // 3], [1.0, 0.3, 0.03]
    )
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"body": body})
    optimizer.add_param_group({"head": head}, lr=0.02)

    @brainstate.transform.jit
    def update(x: jax.Array) -> None:
        def loss() -> jax.Array:
            return ((body.value * x - 0.5) ** 2).mean() + (head.value**2).mean()

        optimizer.step(brainstate.transform.grad(loss, {"body": body, "head": head})())

    def state() -> dict[str, object]:
        return {
            "body": body.value,
            "head": head.value,
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        }

    history: list[dict[str, float]] = []
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    with ocp.CheckpointManager(folder / "checkpoints", options=options) as checkpoints:
        latest = checkpoints.latest_step()
        if latest is not None:
            target = state()
            restore = ocp.args.PyTreeRestore(
                target, ocp.checkpoint_utils.construct_restore_args(target)
            )
            saved = checkpoints.restore(
                latest, args=ocp.args.Composite(state=restore, history=ocp.args.JsonRestore())
            )
            body.value, head.value = saved["state"]["body"], saved["state"]["head"]
            optimizer.load_state_dict(saved["state"]["optimizer"])
            scheduler.load_state_dict(saved["state"]["scheduler"])
            history = saved["history"]

        print("restored", flush=True)
        for epoch in range(scheduler.epoch, epochs):
            rate = float(scheduler.get_last_lr()[0])
            for _ in range(4):
                x = np.random.default_rng([epoch, len(history)]).random(WEIGHTS, np.float32)
                update(jnp.asarray(x))
            scheduler.step()
            history.append({"epoch": epoch, "rate": rate})
            checkpoints.save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state()), history=ocp.args.JsonSave([*history])
                ),
            )

    leaves, _ = jax.tree.flatten_with_path(state())
    arrays = {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in leaves}
    partial = folder / "end.partial"
    partial.write_bytes(pickle.dumps((arrays, history)))
    os.replace(partial, folder / "end")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
