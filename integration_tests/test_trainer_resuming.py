"""SchedulerCheckpoint(resume_from="auto"): runs of braintools' Trainer that were interrupted."""

import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from braintools.file import msgpack_load
from braintools.trainer import Callback, EarlyStopping, ModelCheckpoint, Trainer
from trainer_runs import (
    RATES,
    Data,
    Interrupt,
    Interrupted,
    Regression,
    assert_same_bits,
    end_of,
    fit,
)

from brainsched.trainer import SchedulerCheckpoint

OF_0_1_0 = Path(__file__).parent / "data" / "trainer_checkpoint_0.1.0.ckpt"


def callbacks(folder, *others, **checkpoint):
    checkpoint = {"dirpath": str(folder), "save_top_k": -1} | checkpoint
    return [SchedulerCheckpoint("auto"), ModelCheckpoint(**checkpoint), *others]


def interrupted_at(folder, epoch, epochs=7, others=(), **kwargs):
    given = callbacks(folder, *others, Interrupt(epoch))
    with pytest.raises(Interrupted):
        fit(folder, epochs, callbacks=given, **kwargs)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    trainer, model, _ = fit(tmp_path_factory.mktemp("never_stopped"), 7)
    return end_of(trainer, model)


def test_the_documented_program_started_again_after_an_interruption_goes_on(
    never_stopped, tmp_path
):
    interrupted_at(tmp_path, 4)
    assert not (tmp_path / "last.ckpt").exists()
    trainer, model, rates = fit(tmp_path, 7, callbacks=callbacks(tmp_path))
    assert rates == RATES[4:]
    assert_same_bits(end_of(trainer, model), never_stopped)
    assert len(list(tmp_path.glob("checkpoint-*.ckpt"))) == 7


def test_interrupted_again_and_again_and_in_its_first_epoch_it_ends_the_same(
    never_stopped, tmp_path
):
    for epoch in (0, 2, 3, 6):
        interrupted_at(tmp_path, epoch)
    trainer, model, rates = fit(tmp_path, 7, callbacks=callbacks(tmp_path))
    assert rates == RATES[6:]
    assert_same_bits(end_of(trainer, model), never_stopped)


def test_a_finished_run_started_again_trains_no_more(never_stopped, tmp_path):
    fit(tmp_path, 7, callbacks=callbacks(tmp_path))
    trainer, model, rates = fit(tmp_path, 7, callbacks=callbacks(tmp_path))
    assert rates == []
    assert_same_bits(end_of(trainer, model), never_stopped)


def test_two_checkpoints_in_one_folder_as_documented_lose_no_epoch(tmp_path):
    """The metric is negative, so that the newest is the worst and the first one removes it."""

    class Worse(Regression):
        def validation_step(self, batch, batch_idx):
            return {"loss": float(self.current_epoch)}

    def given(*others):
        return [
            SchedulerCheckpoint("auto"),
            ModelCheckpoint(dirpath=str(tmp_path), monitor="val_loss"),
            ModelCheckpoint(dirpath=str(tmp_path), monitor="", filename="newest"),
            *others,
        ]

    with pytest.raises(Interrupted):
        fit(tmp_path, 7, callbacks=given(Interrupt(5)), model=Worse(True), validate=True)
    best = {"checkpoint-00.ckpt", "checkpoint-01.ckpt", "checkpoint-02.ckpt"}
    assert {path.name for path in tmp_path.glob("*.ckpt")} == best | {"newest.ckpt"}
    _, _, rates = fit(tmp_path, 7, callbacks=given(), model=Worse(True), validate=True)
    assert rates == RATES[5:]


# Which one is the newest


def test_a_damaged_newest_file_is_passed_over_with_a_warning(never_stopped, tmp_path):
    interrupted_at(tmp_path, 4)
    newest = tmp_path / "checkpoint-03.ckpt"
    newest.write_bytes(newest.read_bytes()[:-40])
    with pytest.warns(UserWarning, match=r"passed over checkpoint-03\.ckpt .*checkpoint-02\.ckpt"):
        trainer, model, rates = fit(tmp_path, 7, callbacks=callbacks(tmp_path))
    assert rates == RATES[3:]
    assert_same_bits(end_of(trainer, model), never_stopped)


def test_a_damaged_file_does_not_hide_a_whole_one_of_the_same_second(never_stopped, tmp_path):
    interrupted_at(tmp_path, 4)
    whole = tmp_path / "checkpoint-03.ckpt"
    for i in range(8):
        (tmp_path / f"damaged-{i}.ckpt").write_bytes(whole.read_bytes()[:-40])
    for path in tmp_path.glob("*.ckpt"):
        os.utime(path, (1000, 1000))
    with pytest.warns(UserWarning, match=r"passed over .*, to resume from"):
        assert fit(tmp_path, 7, callbacks=callbacks(tmp_path))[2] == RATES[4:]


def test_the_time_of_writing_decides_and_not_the_name(tmp_path):
    fit(tmp_path, 7, callbacks=callbacks(tmp_path))
    for age, path in enumerate(sorted(tmp_path.glob("*.ckpt"))):
        os.utime(path, (1000 - age, 1000 - age))
    os.utime(tmp_path / "checkpoint-02.ckpt", (2000, 2000))
    _, _, rates = fit(tmp_path, 7, callbacks=callbacks(tmp_path))
    assert rates == RATES[3:]


def test_of_files_of_the_same_second_the_furthest_epoch_is_the_newest(tmp_path):
    fit(tmp_path, 5, callbacks=callbacks(tmp_path))
    (tmp_path / "checkpoint-04.ckpt").rename(tmp_path / "a.ckpt")
    (tmp_path / "last.ckpt").unlink()
    for path in tmp_path.glob("*.ckpt"):
        os.utime(path, (1000, 1000))
    _, _, rates = fit(tmp_path, 7, callbacks=callbacks(tmp_path))
    assert rates == RATES[5:]


def test_a_file_that_is_being_written_is_no_checkpoint(tmp_path):
    interrupted_at(tmp_path, 2)
    (tmp_path / "checkpoint-02.ckpt.tmp-0123").write_bytes(b"half")
    assert fit(tmp_path, 7, callbacks=callbacks(tmp_path))[2] == RATES[2:]


def test_a_checkpoint_within_an_epoch_is_not_taken(tmp_path):
    interrupted_at(tmp_path, 2)
    within = ModelCheckpoint(
        dirpath=str(tmp_path / "other"),
        filename="within",
        every_n_train_steps=1,
        save_on_train_epoch_end=False,
        save_last=False,
    )
    fit(tmp_path / "other", 1, callbacks=[SchedulerCheckpoint(), within])
    shutil.copy(tmp_path / "other" / "within.ckpt", tmp_path)  # newer than all others
    assert fit(tmp_path, 7, callbacks=callbacks(tmp_path))[2] == RATES[2:]


def test_where_none_can_be_resumed_it_does_not_begin_anew(tmp_path):
    fit(tmp_path, 1, callbacks=[ModelCheckpoint(dirpath=str(tmp_path))])
    (tmp_path / "checkpoint-00.ckpt").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"(?s)no checkpoint .*checkpoint-00.*without SchedulerCheckpoint"
    ):
        fit(tmp_path, 7, callbacks=callbacks(tmp_path))


def test_auto_without_a_model_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"looks into the folder of a ModelCheckpoint"):
        fit(tmp_path, 1, callbacks=[SchedulerCheckpoint("auto")])


def test_a_checkpoint_of_version_0_1_0_loads(never_stopped, tmp_path):
    shutil.copy(OF_0_1_0, tmp_path / "of_0_1_0.ckpt")
    assert "interval" not in msgpack_load(str(OF_0_1_0))["brainsched"]
    trainer, model, rates = fit(tmp_path, 7, callbacks=callbacks(tmp_path))
    assert rates == RATES[3:]
    # Not bit for bit: it was saved on another machine.
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5),
        end_of(trainer, model)[0],
        never_stopped[0],
    )


# A start that fails


class FailsOnce(Callback):
    def __init__(self, hook):
        super().__init__()
        self.failed = False
        setattr(self, hook, self.fail)

    def fail(self, *args):
        if not self.failed:
            self.failed = True
            raise Interrupted


@pytest.mark.parametrize(
    "hook",
    [
        "on_fit_start",
        "on_train_start",
        "on_train_epoch_start",
        "on_train_batch_end",
        "on_validation_start",
        "on_train_epoch_end",
    ],
)
def test_a_fit_that_fails_leaves_the_trainer_as_it_was_and_can_be_tried_again(
    never_stopped, tmp_path, hook
):
    interrupted_at(tmp_path, 4)
    model = Regression(True)
    trainer = Trainer(
        max_epochs=7,
        min_epochs=3,
        callbacks=callbacks(tmp_path, FailsOnce(hook)),
        logger=False,
        enable_progress_bar=False,
        default_root_dir=str(tmp_path),
    )
    before = set(vars(trainer))
    with pytest.raises(Interrupted):
        trainer.fit(model, Data(model), [[np.ones((2, 3), np.float32)]])
    assert (trainer.max_epochs, trainer.min_epochs) == (7, 3)
    assert trainer.check_val_every_n_epoch == 1
    assert set(vars(trainer)) == before
    trainer.fit(model, Data(model))
    assert trainer.schedulers[0].epoch == 7
    assert_same_bits(end_of(trainer, model), never_stopped)
    assert (trainer.max_epochs, trainer.min_epochs) == (7, 3)


def test_a_resume_that_is_refused_leaves_the_trainer_as_it_was(tmp_path):
    fit(tmp_path, 5)
    model = Regression(True)
    resume = SchedulerCheckpoint(tmp_path / "missing.ckpt")
    trainer = Trainer(
        max_epochs=7, callbacks=[resume], logger=False, enable_progress_bar=False, min_epochs=2
    )
    with pytest.raises(ValueError, match=r"missing\.ckpt"):
        trainer.fit(model, Data(model))
    assert (trainer.max_epochs, trainer.min_epochs) == (7, 2)
    resume.resume_from = tmp_path / "last.ckpt"
    trainer.fit(model, Data(model))
    assert trainer.schedulers[0].epoch == 7


# Validation and early stopping


class Recorded(Callback):
    """The epochs that were validated."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_validation_epoch_end(self, trainer, module):
        self.epochs.append(trainer.current_epoch)


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_resumed_it_validates_in_the_epochs_of_a_run_never_stopped(tmp_path, stop):
    recorded = Recorded()
    every_epoch = ModelCheckpoint(dirpath=str(tmp_path), save_top_k=-1)
    given = [SchedulerCheckpoint(), every_epoch]
    fit(tmp_path, stop, callbacks=given, validate=True, check_val_every_n_epoch=3)
    trainer, _, rates = fit(
        tmp_path,
        7,
        callbacks=callbacks(tmp_path, recorded),
        validate=True,
        check_val_every_n_epoch=3,
    )
    assert rates == RATES[stop:]
    assert recorded.epochs == [epoch for epoch in (2, 5) if epoch >= stop]
    assert trainer.check_val_every_n_epoch == 3


LOSSES = [5.0, 4.0, 4.5, 3.0, 3.5, 3.5, 3.5, 2.0, 1.0]  # stops after epoch 6 with patience 3


class Scripted(Regression):
    def validation_step(self, batch, batch_idx):
        return {"loss": LOSSES[self.current_epoch]}


@pytest.mark.parametrize("first", [True, False], ids=["before_checkpoint", "after_checkpoint"])
@pytest.mark.parametrize("epoch", [1, 4, 6])
def test_early_stopping_waits_as_long_as_in_a_run_never_stopped(tmp_path, epoch, first):
    def given(*others):
        stopping = EarlyStopping(patience=3)
        checkpoint = ModelCheckpoint(dirpath=str(tmp_path), save_top_k=-1)
        both = [stopping, checkpoint] if first else [checkpoint, stopping]
        return [SchedulerCheckpoint("auto"), *both, *others]

    with pytest.raises(Interrupted):
        fit(
            tmp_path,
            9,
            callbacks=given(Interrupt(epoch)),
            model=Scripted(True),
            validate=True,
        )
    trainer, _, rates = fit(tmp_path, 9, callbacks=given(), model=Scripted(True), validate=True)
    assert trainer.current_epoch == 6
    assert len(rates) == 7 - epoch
    assert trainer.schedulers[0].epoch == 7
    assert trainer.max_epochs == 9


def test_a_run_that_stopped_early_trains_no_more_until_it_may_wait_longer(tmp_path):
    def run(patience):
        given = callbacks(tmp_path, EarlyStopping(patience=patience))
        scripted = {"model": Scripted(True), "validate": True, "min_epochs": 7}
        return fit(tmp_path, 9, callbacks=given, **scripted)[2]

    assert len(run(3)) == 7
    assert run(3) == []
    assert len(run(4)) == 2


# The best of ModelCheckpoint


def savers(folder):
    """One whose best fall and rise, one of the other direction, and one without a metric."""
    return [
        ModelCheckpoint(dirpath=str(folder), monitor="val_loss", save_top_k=2, save_last=False),
        ModelCheckpoint(
            dirpath=str(folder), monitor="val_loss", mode="max", filename="worst-{epoch}"
        ),
        ModelCheckpoint(dirpath=str(folder), monitor="", filename="newest"),
    ]


def memories(saving):
    return [
        {
            "best": None if each.best_score is None else float(each.best_score),
            "path": each.best_model_path and Path(each.best_model_path).name,
            "kept": {Path(path).name: float(score) for path, score in each.best_k_models.items()},
        }
        for each in saving
    ]


@pytest.mark.parametrize("order", [1, -1], ids=["newest_last", "newest_first"])
@pytest.mark.parametrize("epoch", [1, 3, 6])
def test_the_best_are_those_of_a_run_never_stopped(tmp_path, epoch, order):
    whole, before, after = (savers(tmp_path / part)[::order] for part in ("a", "b", "b"))

    def run(part, *given):
        callbacks = [SchedulerCheckpoint("auto"), *given]
        fit(tmp_path / part, 8, callbacks=callbacks, model=Scripted(True), validate=True)

    run("a", *whole)
    with pytest.raises(Interrupted):
        run("b", *before, Interrupt(epoch))
    (tmp_path / "b" / "newest.ckpt").unlink()  # so that one of the others is resumed from
    run("b", *after)
    assert memories(after) == memories(whole)
    assert memories(whole)[::order][0] == {
        "best": 2.0,
        "path": "checkpoint-07.ckpt",
        "kept": {"checkpoint-03.ckpt": 3.0, "checkpoint-07.ckpt": 2.0},
    }
    names = [{path.name for path in (tmp_path / part).glob("*.ckpt")} for part in ("a", "b")]
    assert names[0] == names[1]


def test_the_best_of_another_metric_are_not_restored(tmp_path):
    def run(epochs, **given):
        saving = ModelCheckpoint(dirpath=str(tmp_path), filename="{epoch}", **given)
        callbacks = [SchedulerCheckpoint("auto"), saving]
        fit(tmp_path, epochs, callbacks=callbacks, model=Scripted(True), validate=True)
        return saving.best_score

    assert run(1, monitor="val_loss") == 5.0
    assert run(2, monitor="val_loss", mode="max") == 4.0  # of its own epoch, below that of before
