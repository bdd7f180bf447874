"""Runs of braintools' Trainer on a small regression: started, interrupted and resumed.

    python integration_tests/trainer_runs.py FOLDER CASE [EPOCH]

starts a run of ``CASES``, or goes on with it, kills itself within epoch EPOCH, and else writes
``FOLDER/end``.
"""

import copy
import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
from braintools.trainer import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    LightningModule,
    ModelCheckpoint,
    Trainer,
    TrainerState,
)

from brainsched import CosineAnnealingLR, PiecewiseConstantSchedule, ReduceLROnPlateau, StepLR
from brainsched.trainer import SchedulerCheckpoint

BATCHES = 3
# Base rate 0.1, boundaries 2 and 4.
RATES = np.array([0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.001], np.float32).tolist()
# With a patience of 3, early stopping ends the run after epoch 6.
LOSSES = [5.0, 4.0, 4.5, 3.0, 3.5, 3.5, 3.5, 2.0, 1.0]
# braintools 0.4.0's Trainer restores what configure_optimizers returned, by itself.
RESUMES_BY_ITSELF = hasattr(TrainerState(), "lr_schedulers_stepped")


def stages(values=(1.0, 0.1, 0.01)):
    return PiecewiseConstantSchedule(0.1, [2, 4], values)


class Regression(LightningModule):
    """Trains an optimizer for each scheduler, and validates to ``LOSSES``.

    ``given``: as ``lr=``; ``returned``: beside the optimizers; ``steps``: by the module itself,
    once an 'epoch' or once an 'update'. The Trainer steps the first optimizer alone.
    """

    def __init__(self, *schedulers, given=True, returned=True, steps=None):
        super().__init__()
        self.linear = brainstate.nn.Linear(3, 1, w_init=braintools.init.Constant(0.5))
        self.plans = list(schedulers) or [stages()]
        self.given, self.returned, self.steps = given, returned, steps

    def training_step(self, batch, batch_idx):
        return {"loss": ((self.linear(batch) - 1.0) ** 2).mean()}

    def validation_step(self, batch, batch_idx):
        return {"loss": LOSSES[self.current_epoch]}

    def configure_optimizers(self):
        self.schedulers = copy.deepcopy(self.plans)  # another fit begins with new ones
        rates = self.schedulers if self.given else [1e-3] * len(self.schedulers)
        return [braintools.optim.Adam(lr=rate) for rate in rates], self.schedulers * self.returned

    def on_train_epoch_start(self):
        if self.steps == "epoch":
            for scheduler in self.schedulers:
                scheduler.step(self.current_epoch)

    def on_after_optimizer_step(self, optimizer):
        for other in self.trainer.optimizers[1:]:
            params = other.param_groups[0]["params"].items()
            other.step({name: jax.tree.map(jnp.ones_like, state.value) for name, state in params})
        if self.steps == "update":
            for scheduler in self.schedulers:
                scheduler.step()


class Data:
    """Batches that depend on the model's epoch, as a shuffled data set should."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return BATCHES

    def __iter__(self):
        for batch in range(BATCHES):
            random = np.random.default_rng([self.model.current_epoch, batch])
            yield jnp.asarray(random.normal(size=(4, 3)), jnp.float32)


VALIDATION = [np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)]


class Interrupted(Exception):
    """What ends a run that is interrupted."""


class Interrupt(Callback):
    """Ends a run within an epoch, once."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            self.epoch = None
            self.end()

    def end(self):
        raise Interrupted


class Kill(Interrupt):
    """Kills the process."""

    def end(self):
        os.kill(os.getpid(), signal.SIGKILL)


def saving(folder, **kwargs):
    return ModelCheckpoint(**{"dirpath": str(folder), "save_top_k": -1, **kwargs})


def fit(
    folder,
    epochs,
    *,
    callbacks=None,
    model=None,
    validate=False,
    ckpt_path=None,
    auto=True,
    **kwargs,
):
    """Train, and return the Trainer, the model and the rates of the epochs."""
    model = model or Regression()
    monitor = LearningRateMonitor("epoch")
    if callbacks is None:
        callbacks = [SchedulerCheckpoint("auto" if auto else None), saving(folder)]
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[*callbacks, monitor],
        logger=kwargs.pop("logger", False),
        enable_progress_bar=False,
        default_root_dir=str(folder),
        **kwargs,
    )
    trainer.fit(model, Data(model), [VALIDATION] if validate else None, ckpt_path=ckpt_path)
    rates = np.asarray([entry["lr-opt0"] for entry in monitor.lr_history], np.float32)
    return trainer, model, rates.tolist()


def end_of(trainer):
    """Return all that a run came to, the files that its callbacks remember by their names."""
    memories = []
    for callback in trainer.callbacks:
        memory = callback.state_dict()
        if isinstance(callback, ModelCheckpoint):
            best = callback.best_k_models.items()
            memory["best_k_models"] = {Path(path).name: float(score) for path, score in best}
            memory["best_model_path"] = Path(callback.best_model_path or "").name
        if isinstance(callback, EarlyStopping):
            memory["should_stop"] = callback.should_stop
        memories.append(memory)
    schedulers = [optimizer.lr_scheduler for optimizer in trainer.optimizers]
    parts = [trainer.model, *trainer.optimizers, *schedulers]
    return jax.tree.map(
        lambda leaf: np.int32(leaf) if type(leaf) is int and leaf < 2**31 else np.asarray(leaf),
        {
            "states": [part.state_dict() for part in parts],
            "memories": memories,
            "position": [trainer.current_epoch, trainer.global_step],
            "of_module": [trainer.model.current_epoch, trainer.model.global_step],
            "limits": [trainer.max_epochs, trainer.min_epochs, trainer.check_val_every_n_epoch],
        },
    )


def assert_same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert jax.tree.map(lambda leaf: leaf.dtype, one) == jax.tree.map(
        lambda leaf: leaf.dtype, other
    )


def cosine(T_max):
    return CosineAnnealingLR(0.1, T_max=T_max)


# What may be resumed: the schedulers, how the model has them, and what else the run has.
CASES: dict[str, dict[str, Any]] = {
    "returned": {"has": {"given": False}},
    "given_and_returned": {},
    "given_and_stepped_once_an_epoch": {"has": {"returned": False, "steps": "epoch"}},
    "given_and_stepped_once_an_update": {
        "schedulers": lambda: [cosine(7 * BATCHES)],
        "has": {"returned": False, "steps": "update"},
    },
    "once_an_update": {
        "schedulers": lambda: [cosine(7 * BATCHES)],
        "callback": {"interval": "step"},
        "fit": {"accumulate_grad_batches": 2},
    },
    "plateau": {
        "schedulers": lambda: [ReduceLROnPlateau(0.8, factor=0.5, patience=0)],
        "callback": {"monitor": "val_loss"},
        "fit": {"validate": True},
    },
    "two_optimizers": {"schedulers": lambda: [StepLR(0.8, 1, gamma=0.5), cosine(6)]},
    "two_optimizers_returned": {
        "schedulers": lambda: [ReduceLROnPlateau(0.8, patience=0), cosine(6)],
        "has": {"given": False},
        "callback": {"monitor": "train_loss"},
    },
    "stopped_early": {
        "more": [EarlyStopping],
        "fit": {"validate": True, "check_val_every_n_epoch": 1},
        "epochs": 9,
    },
    "validated_every_third_epoch": {"fit": {"validate": True, "check_val_every_n_epoch": 3}},
    "at_most_so_many_steps": {"fit": {"max_steps": 5 * BATCHES + 1, "min_epochs": 2}},
}


def run(folder, case, *more, resume_from="auto", epochs=None):
    """Run one of ``CASES`` in ``folder``, or go on with it."""
    given = CASES[case]
    callbacks = [
        SchedulerCheckpoint(resume_from, **given.get("callback", {})),
        saving(folder),
        *(cls() for cls in given.get("more", [])),
        *more,
    ]
    model = Regression(*given.get("schedulers", list)(), **given.get("has", {}))
    epochs = epochs or given.get("epochs", 7)
    return fit(folder, epochs, callbacks=callbacks, model=model, **given.get("fit", {}))[0]


if __name__ == "__main__":
    folder, case, *epoch = sys.argv[1:]
    end = end_of(run(Path(folder), case, *map(Kill, map(int, epoch))))
    (Path(folder) / "end").write_bytes(pickle.dumps(end))
