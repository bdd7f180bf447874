"""SchedulerCheckpoint in braintools' own Trainer: who steps a scheduler, at what, and the log."""

import csv
import pickle
import subprocess
import sys

import brainstate
import braintools
import numpy as np
import pytest
from braintools.trainer import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateMonitor,
    LightningModule,
    ModelCheckpoint,
    Trainer,
)
from trainer_runs import BATCHES, RATES, VALIDATION, Data, Regression, cosine, fit

from brainsched import ReduceLROnPlateau, StepLR
from brainsched.trainer import SchedulerCheckpoint

pytestmark = pytest.mark.filterwarnings("ignore:2 optimizers were configured:UserWarning")


class Scripted(Regression):
    """Validates to 1, 1, 0.5, 0.5, 0.5, 0.5 ..."""

    def validation_step(self, batch, batch_idx):
        return {"loss": 1.0 if self.current_epoch < 2 else 0.5}


def train(folder, epochs, *schedulers, fit_with=None, has=None, **callback):
    """Return the Trainer, and the rate that each batch was trained at."""
    monitor = LearningRateMonitor("step")
    trainer, *_ = fit(
        folder,
        epochs,
        model=Scripted(*schedulers, **{"given": False, **(has or {})}),
        callbacks=[SchedulerCheckpoint(**callback), monitor],
        **(fit_with or {}),
    )
    return trainer, rounded([entry["lr-opt0"] for entry in monitor.lr_history])


def rounded(rates):
    """Return ``rates`` as they are in float32."""
    return np.asarray(rates, np.float32).tolist()


def halving(step_size=1):
    return StepLR(0.8, step_size=step_size, gamma=0.5)


def plateau():
    return ReduceLROnPlateau(0.8, factor=0.5, patience=1)


# Steps


@pytest.mark.parametrize("given", [True, False], ids=["given_as_lr", "returned_only"])
def test_a_returned_scheduler_is_applied_from_the_first_epoch_on(tmp_path, given):
    trainer, rates = train(tmp_path, 5, has={"given": given})
    assert rates == np.repeat(RATES[:5], BATCHES).tolist()
    assert trainer.schedulers[0].optimizer is trainer.optimizers[0]
    assert trainer.schedulers[0].epoch == 5


def test_without_the_callback_a_scheduler_that_is_only_returned_is_not_applied(tmp_path):
    trainer, _, rates = fit(tmp_path, 3, model=Regression(given=False), callbacks=[])
    assert rates == pytest.approx([1e-3] * 3)
    assert trainer.schedulers[0].epoch == 3


STEPPED = {
    # the schedulers, the callback's and the Trainer's arguments; then epochs and the rates expected
    "once an epoch": ([halving()], {}, {}, 3, np.repeat([0.8, 0.4, 0.2], 3), [3]),
    "once an update": (
        [halving(2)],
        {"interval": "step"},
        {},
        3,
        [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1, 0.05],
        [9],
    ),
    # Of 3 batches, two make an update, and the third one makes another at the epoch's end.
    "once an update of several batches": (
        [halving()],
        {"interval": "step"},
        {"accumulate_grad_batches": 2},
        2,
        [0.8, 0.8, 0.4, 0.2, 0.2, 0.1],
        [4],
    ),
    # Reduced at the second epoch without an improvement, after epochs 4 and 6. It validates
    # after each batch as well, which does not count.
    "with what was validated": (
        [plateau()],
        {"monitor": "val_loss"},
        {"validate": True, "val_check_interval": 1},
        7,
        np.repeat([0.8, 0.8, 0.8, 0.8, 0.8, 0.4, 0.4], 3),
        [7],
    ),
    # Validated are epochs 1, 3, 5, 7, to 1, 0.5, 0.5, 0.5: reduced after the last one.
    "with what was validated every second epoch": (
        [plateau()],
        {"monitor": "val_loss"},
        {"validate": True, "check_val_every_n_epoch": 2},
        8,
        [0.8] * 8 * 3,
        [4],
    ),
    "with a metric of the training, which improves": (
        [plateau()],
        {"monitor": "train_loss"},
        {"validate": True, "check_val_every_n_epoch": 2},
        3,
        [0.8] * 3 * 3,
        [3],
    ),
    "each of two": ([halving(), cosine(9)], {}, {}, 2, np.repeat([0.8, 0.4], 3), [2, 2]),
    "one once an update, one with a metric": (
        [halving(), plateau()],
        {"interval": "step", "monitor": "train_loss"},
        {},
        2,
        [0.8, 0.4, 0.2, 0.1, 0.05, 0.025],
        [6, 2],
    ),
}


@pytest.mark.parametrize("how", STEPPED)
def test_schedulers_are_stepped(tmp_path, how):
    schedulers, callback, fit_with, epochs, expected, at = STEPPED[how]
    trainer, rates = train(tmp_path, epochs, *schedulers, fit_with=fit_with, **callback)
    assert rates == rounded(expected)
    assert [scheduler.epoch for scheduler in trainer.schedulers] == at
    assert [scheduler.optimizer for scheduler in trainer.schedulers] == trainer.optimizers


def test_early_stopping_and_a_plateau_see_the_same_metric(tmp_path):
    given = [SchedulerCheckpoint(monitor="val_loss"), EarlyStopping(patience=3)]
    model = Scripted(plateau(), given=False)
    trainer, _, rates = fit(tmp_path, 9, model=model, callbacks=given, validate=True)
    assert trainer.current_epoch == 5  # 0.5 in epoch 2, and three epochs without an improvement
    assert rates == rounded([0.8, 0.8, 0.8, 0.8, 0.8, 0.4])


def test_validating_before_and_after_a_run_steps_nothing(tmp_path):
    model, callbacks = Scripted(plateau(), given=False), [SchedulerCheckpoint(monitor="val_loss")]
    trainer = Trainer(2, callbacks=callbacks, logger=False, enable_progress_bar=False)
    trainer.validate(model, [VALIDATION], verbose=False)
    trainer.fit(model, Data(model), [VALIDATION])
    trainer.validate(verbose=False)
    assert trainer.schedulers[0].epoch == 2


def test_a_scheduler_that_has_its_optimizer_stays_with_it_in_whatever_order(tmp_path):
    class Swapped(Regression):
        def configure_optimizers(self):
            optimizers, schedulers = super().configure_optimizers()
            return optimizers, schedulers[::-1]

    model = Swapped(halving(), cosine(6))
    trainer, *_ = fit(tmp_path, 2, model=model, callbacks=[SchedulerCheckpoint()])
    assert [scheduler.optimizer for scheduler in model.schedulers] == trainer.optimizers


# What is refused


class OneTooMany(Regression):
    def configure_optimizers(self):
        optimizers, schedulers = super().configure_optimizers()
        return optimizers, [*schedulers, halving()]


@pytest.mark.parametrize(
    ("model", "callback", "fit_with", "message"),
    [
        (Regression(plateau()), {}, {}, r"SchedulerCheckpoint\(monitor='val_loss'\)"),
        (
            Regression(plateau()),
            {"monitor": "val_los"},
            {"validate": True},
            r"monitor='val_los' was not logged, only 'train_loss', .*'val_loss'",
        ),
        (Regression(returned=False), {"interval": "step"}, {}, "steps what is returned"),
        (OneTooMany(), {}, {}, "no optimizer was returned for scheduler 1"),
    ],
)
def test_what_the_run_has_and_the_callback_asks_for_must_go_together(
    tmp_path, model, callback, fit_with, message
):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, 1, model=model, callbacks=[SchedulerCheckpoint(**callback)], **fit_with)


def test_model_checkpoint_must_come_after(tmp_path):
    callbacks = [ModelCheckpoint(dirpath=str(tmp_path)), SchedulerCheckpoint()]
    with pytest.raises(ValueError, match="must stand before ModelCheckpoint"):
        fit(tmp_path, 1, callbacks=callbacks)


@pytest.mark.parametrize(
    ("interval", "error"), [("steps", ValueError), (1, TypeError), (None, TypeError)]
)
def test_an_unknown_interval_is_refused(interval, error):
    with pytest.raises(error, match=r"interval must be one of 'epoch', 'step'"):
        SchedulerCheckpoint(interval=interval)


# The log


class Groups(LightningModule):
    """Has two param groups; the Trainer registers the weights of both once more."""

    def __init__(self, base_lr):
        super().__init__()
        self.base_lr = base_lr
        self.body = brainstate.nn.Linear(3, 3)
        self.head = brainstate.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        return {"loss": (self.head(self.body(batch)) ** 2).mean()}

    def configure_optimizers(self):
        scheduler = StepLR(self.base_lr, step_size=1, gamma=0.5)
        optimizer = braintools.optim.SGD(lr=scheduler)
        states = self.states(brainstate.ParamState)
        optimizer.register_trainable_weights({("body", "weight"): states["body", "weight"]})
        optimizer.add_param_group({("head", "weight"): states["head", "weight"]})
        return optimizer, scheduler


class Shown(Callback):
    """What the progress bar shows."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.shown.append(dict(module._get_prog_bar_metrics()))


@pytest.mark.parametrize(
    ("base_lr", "groups"),
    [([0.8, 0.08], ["group0", "group1"]), ({"body": 0.8, "head": 0.08}, ["body", "head"])],
    ids=["numbered", "named"],
)
def test_the_rates_of_all_groups_are_in_the_log_and_the_progress_bar(tmp_path, base_lr, groups):
    shown = Shown()
    trainer, _, _ = fit(
        tmp_path,
        2,
        model=Groups(base_lr),
        callbacks=[SchedulerCheckpoint(), shown],
        logger=CSVLogger(str(tmp_path), name="log"),
    )
    names = [f"lr-opt0/{group}" for group in groups]
    expected = rounded([[0.8, 0.08]] * BATCHES + [[0.4, 0.04]] * BATCHES)
    assert [[entry[name] for name in names] for entry in shown.shown] == expected
    (path,) = tmp_path.rglob("metrics.csv")
    with path.open() as file:
        logged = [[float(row[name]) for name in names] for row in csv.DictReader(file)]
    assert logged == expected
    # The Trainer's mean over the epoch.
    np.testing.assert_allclose(
        [trainer.callback_metrics[f"train_{name}"] for name in names], [0.4, 0.04], rtol=1e-6
    )


# The module


def test_importing_brainsched_does_not_import_the_bridge():
    code = "import sys, brainsched; sys.exit('brainsched.trainer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_callback_can_be_pickled():
    callback = pickle.loads(pickle.dumps(SchedulerCheckpoint("runs/last.ckpt", interval="step")))
    assert (callback.resume_from, callback.interval) == ("runs/last.ckpt", "step")
