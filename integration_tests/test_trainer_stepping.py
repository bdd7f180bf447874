"""Who steps a scheduler in braintools' Trainer, at what, and what of it is logged."""

import csv

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from braintools.trainer import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateMonitor,
    LightningModule,
    ModelCheckpoint,
)
from trainer_runs import BATCHES, Interrupt, Interrupted, Regression, assert_same_bits, fit

from brainsched import CosineAnnealingLR, ReduceLROnPlateau, StepLR
from brainsched.trainer import SchedulerCheckpoint


class Returns(Regression):
    """Returns these schedulers, each beside an optimizer."""

    def __init__(self, *schedulers):
        super().__init__(True)
        self.schedulers = list(schedulers)

    def configure_optimizers(self):
        optimizers = [braintools.optim.Adam(lr=1e-3) for _ in self.schedulers]
        return optimizers, self.schedulers


def rates_of_updates(folder, model, epochs, *before, **kwargs):
    """Return the Trainer, and the rate that each batch was trained at."""
    monitor = LearningRateMonitor("step")
    given = [*before, monitor]
    trainer, _, _ = fit(folder, epochs, model=model, callbacks=given, **kwargs)
    return trainer, [entry["lr-opt0"] for entry in monitor.lr_history]


def rounded(rates):
    """Return ``rates`` as they are in float32."""
    return np.asarray(rates, np.float32).tolist()


def halving_every(count):
    return StepLR(0.8, step_size=count, gamma=0.5)


# Steps


def test_interval_step_steps_once_an_update_and_the_trainer_not_at_all(tmp_path):
    trainer, rates = rates_of_updates(
        tmp_path, Returns(halving_every(2)), 3, SchedulerCheckpoint(interval="step")
    )
    assert rates == rounded([0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1, 0.05])
    assert trainer.schedulers[0].epoch == 3 * BATCHES


def test_interval_epoch_leaves_the_steps_to_the_trainer(tmp_path):
    trainer, rates = rates_of_updates(tmp_path, Returns(halving_every(1)), 3, SchedulerCheckpoint())
    assert rates == rounded(np.repeat([0.8, 0.4, 0.2], BATCHES))
    assert trainer.schedulers[0].epoch == 3


def test_an_update_and_not_a_batch_is_counted_where_gradients_are_accumulated(tmp_path):
    """Of 3 batches, two make an update, and the third one makes another at the epoch's end."""
    trainer, rates = rates_of_updates(
        tmp_path,
        Returns(halving_every(1)),
        2,
        SchedulerCheckpoint(interval="step"),
        accumulate_grad_batches=2,
    )
    assert rates == rounded([0.8, 0.8, 0.4, 0.2, 0.2, 0.1])
    assert trainer.schedulers[0].epoch == 4


@pytest.mark.parametrize("epoch", [1, 3])
def test_stepped_once_an_update_it_resumes_with_the_same_bits(tmp_path, epoch):
    def run(folder, *others):
        given = [
            SchedulerCheckpoint("auto", interval="step"),
            ModelCheckpoint(dirpath=str(folder), save_top_k=-1),
            *others,
        ]
        model = Returns(CosineAnnealingLR(0.1, T_max=5 * BATCHES))
        trainer, _, _ = fit(folder, 5, model=model, callbacks=given)
        return trainer

    never_stopped = run(tmp_path / "never_stopped")
    with pytest.raises(Interrupted):
        run(tmp_path, Interrupt(epoch))
    trainer = run(tmp_path)
    assert trainer.schedulers[0].epoch == 5 * BATCHES
    assert_same_bits(ends(trainer), ends(never_stopped))


def ends(trainer):
    parts = [trainer.model, *trainer.optimizers, *trainer.schedulers]
    return jax.tree.map(np.asarray, [part.state_dict() for part in parts])


def test_a_checkpoint_of_the_other_interval_is_refused(tmp_path):
    fit(tmp_path, 2)
    resume = SchedulerCheckpoint(tmp_path / "last.ckpt", interval="step")
    with pytest.raises(ValueError, match=r"saved with interval='epoch'.* interval='step'"):
        fit(tmp_path, 3, callbacks=[resume])


@pytest.mark.parametrize(
    ("interval", "error"), [("steps", ValueError), (1, TypeError), (None, TypeError)]
)
def test_an_unknown_interval_is_refused(interval, error):
    with pytest.raises(error, match=r"interval must be one of 'epoch', 'step'"):
        SchedulerCheckpoint(interval=interval)


def test_interval_step_without_a_scheduler_to_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"interval='step' .* return \(optimizer, scheduler\)"):
        fit(tmp_path, 1, model=Returns(), callbacks=[SchedulerCheckpoint(interval="step")])


# Metrics


class Scripted(Returns):
    """Validates to 1, 1, 0.5, 0.5, 0.5, 0.5 ..."""

    def validation_step(self, batch, batch_idx):
        return {"loss": 1.0 if self.current_epoch < 2 else 0.5}


def plateau():
    return ReduceLROnPlateau(0.8, factor=0.5, patience=1)


def test_the_trainer_steps_a_plateau_without_a_metric_which_raises(tmp_path):
    with pytest.raises(TypeError, match="metric"):
        fit(tmp_path, 1, model=Returns(plateau()), callbacks=[])


def test_a_plateau_is_stepped_with_the_validated_metric_once_an_epoch(tmp_path):
    trainer, rates = rates_of_updates(
        tmp_path,
        Scripted(plateau()),
        7,
        SchedulerCheckpoint(monitor="val_loss"),
        validate=True,
        val_check_interval=1,  # validates after each batch as well
    )
    # Reduced at the second epoch without an improvement, after epochs 4 and 6.
    assert rates[::BATCHES] == rounded([0.8, 0.8, 0.8, 0.8, 0.8, 0.4, 0.4])
    assert trainer.schedulers[0].epoch == 7
    assert trainer.schedulers[0].get_last_lr() == [np.float32(0.2)]


def test_a_plateau_counts_validations_where_not_every_epoch_has_one(tmp_path):
    trainer, rates = rates_of_updates(
        tmp_path,
        Scripted(plateau()),
        8,
        SchedulerCheckpoint(monitor="val_loss"),
        validate=True,
        check_val_every_n_epoch=2,
    )
    # Validated are epochs 1, 3, 5, 7: to 1, 0.5, 0.5, 0.5.
    assert set(rates) == {float(np.float32(0.8))}
    assert trainer.schedulers[0].epoch == 4
    assert trainer.schedulers[0].get_last_lr() == [np.float32(0.4)]


@pytest.mark.parametrize("validate", [False, True])
def test_a_plateau_is_stepped_with_a_metric_of_the_training(tmp_path, validate):
    trainer, _ = rates_of_updates(
        tmp_path,
        Scripted(plateau()),
        3,
        SchedulerCheckpoint(monitor="train_loss"),
        validate=validate,
        check_val_every_n_epoch=2,
    )
    (scheduler,) = trainer.schedulers
    assert scheduler.epoch == 3
    assert 0 < scheduler.best.value <= trainer.callback_metrics["train_loss"]


def test_a_plateau_that_was_interrupted_goes_on_with_its_memory(tmp_path):
    def run(*others):
        given = [
            SchedulerCheckpoint("auto", monitor="val_loss"),
            ModelCheckpoint(dirpath=str(tmp_path), save_top_k=-1),
            *others,
        ]
        trainer, _, rates = fit(
            tmp_path, 7, model=Scripted(plateau()), callbacks=given, validate=True
        )
        return trainer, rates

    with pytest.raises(Interrupted):
        run(Interrupt(4))
    trainer, rates = run()
    assert rates == rounded([0.8, 0.4, 0.4])
    assert trainer.schedulers[0].epoch == 7
    assert trainer.schedulers[0].get_last_lr() == [np.float32(0.2)]


def test_a_metric_that_was_not_logged_is_named_with_what_was(tmp_path):
    with pytest.raises(
        ValueError, match=r"monitor='val_los' was not logged\. Logged were .*'val_loss'"
    ):
        fit(
            tmp_path,
            1,
            model=Scripted(plateau()),
            callbacks=[SchedulerCheckpoint(monitor="val_los")],
            validate=True,
        )


def test_without_validation_its_metric_is_missed_in_the_first_epoch(tmp_path):
    with pytest.raises(ValueError, match=r"'val_loss' was not logged\. Logged were .*'train_loss'"):
        fit(
            tmp_path,
            1,
            model=Scripted(plateau()),
            callbacks=[SchedulerCheckpoint(monitor="val_loss")],
        )


def test_a_plateau_needs_a_monitor_and_a_monitor_a_plateau(tmp_path):
    with pytest.raises(ValueError, match=r"SchedulerCheckpoint\(monitor='val_loss'\)"):
        fit(tmp_path, 1, model=Returns(plateau()), callbacks=[SchedulerCheckpoint()])
    with pytest.raises(ValueError, match=r"monitor='val_loss' .* returned none"):
        fit(tmp_path, 1, callbacks=[SchedulerCheckpoint(monitor="val_loss")])


def test_early_stopping_and_a_plateau_see_the_same_metric(tmp_path):
    trainer, _, rates = fit(
        tmp_path,
        9,
        model=Scripted(plateau()),
        callbacks=[SchedulerCheckpoint(monitor="val_loss"), EarlyStopping(patience=3)],
        validate=True,
    )
    assert trainer.current_epoch == 5  # 0.5 in epoch 2, and three epochs without an improvement
    assert rates == rounded([0.8, 0.8, 0.8, 0.8, 0.8, 0.4])


# Several optimizers


class Two(Returns):
    """Steps the second optimizer itself, since the Trainer steps the first alone."""

    def on_after_optimizer_step(self, optimizer):
        _, second = self.trainer.optimizers
        ones = {name: jax.tree.map(jnp.ones_like, state.value) for name, state in self.all(second)}
        second.step(ones)

    @staticmethod
    def all(optimizer):
        return optimizer.param_groups[0]["params"].items()


def fit_two(folder, epochs, *others, second=None, **kwargs):
    given = [
        SchedulerCheckpoint("auto", **kwargs),
        ModelCheckpoint(dirpath=str(folder), save_top_k=-1),
        *others,
    ]
    model = Two(halving_every(1), second or CosineAnnealingLR(0.1, T_max=6))
    with pytest.warns(UserWarning, match="2 optimizers were configured but only the first"):
        return fit(folder, epochs, model=model, callbacks=given)


def test_each_of_two_optimizers_follows_its_scheduler_and_resumes_with_it(tmp_path):
    never_stopped, *_ = fit_two(tmp_path / "never_stopped", 5)
    with pytest.raises(Interrupted):
        fit_two(tmp_path, 5, Interrupt(2))
    trainer, _, _ = fit_two(tmp_path, 5)
    halved, cosine = trainer.schedulers
    assert halved.get_last_lr() == [np.float32(0.8 * 0.5**5)]
    assert cosine.get_last_lr() == [np.float32(0.05 * (1 + np.cos(np.pi * 5 / 6)))]
    assert [scheduler.optimizer for scheduler in trainer.schedulers] == trainer.optimizers
    assert_same_bits(ends(trainer), ends(never_stopped))


class Alone(Returns):
    """Returns an optimizer that has its scheduler, alone, and may step it in a hook."""

    def __init__(self, scheduler, steps=False):
        super().__init__(scheduler)
        self.steps = steps

    def configure_optimizers(self):
        return braintools.optim.Adam(lr=self.schedulers[0])

    def on_train_epoch_end(self):
        if self.steps:
            self.schedulers[0].step()


@pytest.mark.parametrize("scheduler", [halving_every(1), plateau()])
def test_a_scheduler_that_nobody_steps_is_warned_of_once(tmp_path, scheduler):
    model, message = Alone(scheduler), f"nothing has stepped the {type(scheduler).__name__}"
    with pytest.warns(UserWarning, match=message) as warned:
        _, _, rates = fit(tmp_path, 3, model=model, callbacks=[SchedulerCheckpoint()])
    assert len(warned) == 1
    assert len(set(rates)) == 1


def test_a_scheduler_that_the_module_steps_or_that_stays_as_it_is_is_none_to_warn_of(tmp_path):
    model = Alone(halving_every(1), steps=True)
    _, _, rates = fit(tmp_path, 3, model=model, callbacks=[SchedulerCheckpoint()])
    assert rates == rounded([0.8, 0.4, 0.2])
    model = Alone(halving_every(9))
    _, _, rates = fit(tmp_path, 3, model=model, callbacks=[SchedulerCheckpoint()])
    assert rates == rounded([0.8] * 3)


class Swapped(Two):
    """Gives each optimizer its scheduler, and returns the schedulers in the other order."""

    def configure_optimizers(self):
        optimizers = [braintools.optim.Adam(lr=scheduler) for scheduler in self.schedulers]
        return optimizers, self.schedulers[::-1]


def test_a_scheduler_that_has_its_optimizer_stays_with_it_in_whatever_order(tmp_path):
    model = Swapped(halving_every(1), CosineAnnealingLR(0.1, T_max=6))
    with pytest.warns(UserWarning, match="2 optimizers were configured") as warned:
        trainer, _, _ = fit(tmp_path, 2, model=model, callbacks=[SchedulerCheckpoint()])
    assert len(warned) == 1
    assert [scheduler.optimizer for scheduler in model.schedulers] == trainer.optimizers


def test_both_of_two_schedulers_count_updates_and_one_may_have_a_metric(tmp_path):
    trainer, _, rates = fit_two(
        tmp_path, 2, interval="step", monitor="train_loss", second=plateau()
    )
    assert rates == rounded([0.8, 0.1])
    assert [scheduler.epoch for scheduler in trainer.schedulers] == [2 * BATCHES, 2]


def test_if_the_second_scheduler_does_not_fit_the_first_is_left_as_it_was(tmp_path):
    fit_two(tmp_path, 2)
    built = []

    class Kept(Two):
        def configure_optimizers(self):
            built.extend(self.schedulers)
            return super().configure_optimizers()

    model = Kept(halving_every(1), StepLR(0.1, step_size=1))
    with (
        pytest.warns(UserWarning, match="2 optimizers"),
        pytest.raises(ValueError, match="'CosineAnnealingLR', but this scheduler is a StepLR"),
    ):
        fit(tmp_path, 3, model=model, callbacks=[SchedulerCheckpoint(tmp_path / "last.ckpt")])
    assert [scheduler.epoch for scheduler in built] == [0, 0]


# The log


class Groups(LightningModule):
    """Has two param groups.

    The scheduler is returned and not given as ``lr=``: the Trainer registers all weights once
    more, which an optimizer that follows a scheduler refuses after a group was added.
    """

    def __init__(self, base_lr):
        super().__init__()
        self.base_lr = base_lr
        self.body = brainstate.nn.Linear(3, 3)
        self.head = brainstate.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        return {"loss": (self.head(self.body(batch)) ** 2).mean()}

    def configure_optimizers(self):
        optimizer = braintools.optim.SGD(lr=1e-3)
        states = self.states(brainstate.ParamState)
        optimizer.register_trainable_weights({("body", "weight"): states["body", "weight"]})
        optimizer.add_param_group({("head", "weight"): states["head", "weight"]})
        return optimizer, StepLR(self.base_lr, step_size=1, gamma=0.5)


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
