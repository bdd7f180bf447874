"""Runs of braintools' Trainer on a small regression: started, interrupted and resumed."""

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
from braintools.trainer import (
    Callback,
    LearningRateMonitor,
    LightningModule,
    ModelCheckpoint,
    Trainer,
)

from brainsched import PiecewiseConstantSchedule
from brainsched.trainer import SchedulerCheckpoint

BATCHES = 3
# Base rate 0.1, boundaries 2 and 4.
RATES = np.array([0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.001], np.float32).tolist()


class Regression(LightningModule):
    def __init__(self, given, values=(1.0, 0.1, 0.01)):
        super().__init__()
        self.linear = brainstate.nn.Linear(3, 1, w_init=braintools.init.Constant(0.5))
        self.given = given
        self.values = values

    def training_step(self, batch, batch_idx):
        return {"loss": ((self.linear(batch) - 1.0) ** 2).mean()}

    def validation_step(self, batch, batch_idx):
        return self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        scheduler = PiecewiseConstantSchedule(0.1, [2, 4], self.values)
        rate = scheduler if self.given else 1e-3
        return braintools.optim.Adam(lr=rate), scheduler


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
            raise Interrupted


def fit(
    folder,
    epochs,
    *,
    given=True,
    resume_from=None,
    callbacks=None,
    model=None,
    validate=False,
    **kwargs,
):
    """Train, and return the Trainer, the model and the rates of the epochs."""
    model = model or Regression(given)
    monitor = LearningRateMonitor("epoch")
    if callbacks is None:
        checkpoints = ModelCheckpoint(dirpath=str(folder), save_top_k=-1)
        callbacks = [SchedulerCheckpoint(resume_from), checkpoints]
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[*callbacks, monitor],
        logger=kwargs.pop("logger", False),
        enable_progress_bar=False,
        default_root_dir=str(folder),
        **kwargs,
    )
    trainer.fit(model, Data(model), [VALIDATION] if validate else None)
    return trainer, model, [entry["lr-opt0"] for entry in monitor.lr_history]


def end_of(trainer, model):
    (optimizer,), (scheduler,) = trainer.optimizers, trainer.schedulers
    return jax.tree.map(
        np.asarray, [model.state_dict(), optimizer.state_dict(), scheduler.state_dict()]
    )


def assert_same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert jax.tree.map(lambda leaf: leaf.dtype, one) == jax.tree.map(
        lambda leaf: leaf.dtype, other
    )
