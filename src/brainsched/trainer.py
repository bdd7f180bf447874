"""The bridge to ``braintools.trainer``: runs of its Trainer that can be stopped and resumed."""

import copy
import functools
import itertools
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from braintools.file import InvalidCheckpointPath, msgpack_from_state_dict, msgpack_load
from braintools.trainer import Callback, EarlyStopping, ModelCheckpoint

from brainsched import _upstream
from brainsched._base import LRScheduler
from brainsched.schedules import ReduceLROnPlateau, _schedule_check

__all__ = ["SchedulerCheckpoint"]

_ENTRY = "brainsched"
_KEYS = {"epochs_done", "global_step", "within_epoch", "step_pending", "schedulers"}
# Not in the checkpoints of brainsched 0.1.
_LATER_KEYS = {"interval", "early_stopping"}


class SchedulerCheckpoint(Callback):
    """Put schedulers into the Trainer's log and checkpoints, and resume a run from one.

    A scheduler that ``configure_optimizers`` returned beside an optimizer is attached to it, so
    that its rates are applied, from the first epoch on. The rates of all param groups are logged.
    Each checkpoint of ``ModelCheckpoint`` gets the schedulers' states. With ``resume_from``,
    ``fit`` goes on after the last epoch of that checkpoint, counts epochs from there, and ends
    where a run that was never stopped ends.

    Without this callback, in braintools 0.3.0: a returned scheduler that was not given to the
    optimizer as ``lr=`` is stepped, but its rates are not applied; checkpoints hold no scheduler,
    and those of an epoch's end are from before its ``scheduler.step()``; ``fit(ckpt_path=...)``
    fails at the first step of an optimizer with a state (``'str' object has no attribute 'mu'``),
    and counts epochs from 0 again; ``on_load_checkpoint`` is never called.

    Parameters
    ----------
    resume_from : path or 'auto', optional
        A checkpoint that ``ModelCheckpoint`` saved at an epoch's end, or its ``last.ckpt``, in a
        run with this callback. With ``'auto'``, the newest such file in the folder of the
        ``ModelCheckpoint`` beside this callback, by its time of modification; while the folder has
        no checkpoint, the run begins at its beginning. A newer file that is damaged is passed
        over, with a warning.
    interval : {'epoch', 'step'}
        When a returned scheduler is stepped: once an epoch, as the Trainer does it, or once an
        update of the optimizer, which this callback does in its place.
    monitor : str, optional
        The metric that a returned ``ReduceLROnPlateau`` is stepped with, once an epoch, by its name
        in ``trainer.callback_metrics``: one that begins with ``train_`` at the end of the epoch's
        training, any other after its validation, if the run has one.

    Raises
    ------
    TypeError, ValueError
        If ``interval`` is neither of the two.
    ValueError
        From ``fit``, before anything has changed: if a ``ModelCheckpoint`` stands before this
        callback in the Trainer's list, which would save before this one knows that the epoch has
        ended; if a scheduler has no optimizer beside it; if ``monitor`` and ``ReduceLROnPlateau``
        are not there together; if the checkpoint is damaged, was saved without this callback,
        within an epoch or with another ``interval``, or does not fit the model and optimizers; if
        ``'auto'`` finds checkpoints of which none can be resumed. Within ``fit``: if the metric
        ``monitor`` was not logged.

    Notes
    -----
    Restored are what the Trainer saves, the model's parameters and the optimizers, the schedulers,
    and how long ``EarlyStopping`` has waited. Other States of the model and random keys are not in
    these checkpoints, and the order of the data must depend on nothing but
    ``module.current_epoch``. ``ModelCheckpoint`` looks for its best anew.

    A ``ModelCheckpoint`` that has a metric to monitor removes the newest file where its metric is
    among the worst. To lose no epoch, put another beside it that has none, as in the example.

    Examples
    --------
    Started again after an interruption, at whatever moment, the same program goes on::

        trainer = Trainer(
            max_epochs=90,
            callbacks=[
                SchedulerCheckpoint(resume_from="auto"),
                ModelCheckpoint(dirpath="runs", monitor="val_loss"),  # the best three
                ModelCheckpoint(dirpath="runs", monitor="", filename="newest"),
            ],
        )
        trainer.fit(model, train_loader, val_loader)
    """

    def __init__(
        self,
        resume_from: str | os.PathLike[str] | None = None,
        interval: str = "epoch",
        monitor: str | None = None,
    ) -> None:
        super().__init__()
        self.resume_from = resume_from
        self.interval = _schedule_check.one_of("interval", interval, ["epoch", "step"])
        self.monitor = monitor
        self._lent: dict[str, Any] = {}
        self._begin()

    def _begin(self) -> None:
        self._offset = 0
        self._epochs_done = 0
        self._within_epoch = False
        self._step_pending = False
        self._before_validation: dict[int, dict[str, Any]] = {}
        self._by_trainer: list[Any] = []
        self._by_update: list[Any] = []
        self._by_metric: list[ReduceLROnPlateau] = []

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Attach the schedulers, and restore the checkpoint if there is one to resume from."""
        self._give_back(trainer)  # what a fit that failed still has
        self._begin()
        before = trainer.callbacks[: trainer.callbacks.index(self)]
        if any(isinstance(callback, ModelCheckpoint) for callback in before):
            raise ValueError(
                "SchedulerCheckpoint must stand before ModelCheckpoint in the Trainer's "
                "callbacks, so that it knows what is saved"
            )
        self._share_out_steps([each for each in trainer.schedulers if hasattr(each, "step")])
        _attach(trainer)
        if self.resume_from == "auto":
            newest = _newest(_folders(trainer))
            if newest is not None:
                self._resume(trainer, module, *newest)
        elif self.resume_from is not None:
            path = os.fspath(self.resume_from)
            self._resume(trainer, module, path, _read(path))

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Count on from the epochs before the resumption, where the Trainer counts from 0."""
        self._give_back(trainer)
        trainer.state.epoch += self._offset
        module.current_epoch = trainer.state.epoch
        self._within_epoch, self._step_pending = True, False
        self._before_validation = {}

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Log the rates that the batch is trained at."""
        for i, scheduler in enumerate(map(_scheduler_of, trainer.optimizers)):
            if scheduler is not None:
                for name, rate in _named_rates(f"lr-opt{i}", scheduler):
                    module.log(name, rate, prog_bar=True)

    def on_after_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Step the schedulers that count updates."""
        for scheduler in self._by_update:
            scheduler.step()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Note that the epoch has ended, and let the Trainer do what its own count is wrong for."""
        self._epochs_done = trainer.state.epoch + 1
        self._within_epoch, self._step_pending = False, bool(self._by_trainer)
        if self._by_metric and not self._waits_for_validation(trainer):
            self._step_with_metric(trainer)

        every = trainer.check_val_every_n_epoch
        validates = self._epochs_done % every == 0
        self._lend(
            trainer,
            min_epochs=trainer.min_epochs - self._offset,
            check_val_every_n_epoch=1 if validates else math.inf,
            schedulers=self._by_trainer,
        )

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """Step the schedulers that depend on what was validated."""
        self._before_validation = {
            i: dict(vars(callback))
            for i, callback in enumerate(trainer.callbacks)
            if isinstance(callback, EarlyStopping) and i > trainer.callbacks.index(self)
        }
        if self._by_metric and not self._within_epoch and self._waits_for_validation(trainer):
            self._step_with_metric(trainer)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Note that the last epoch's step was taken."""
        self._give_back(trainer)
        self._step_pending = False

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the schedulers' states and the position to a checkpoint."""
        checkpoint[_ENTRY] = {
            "epochs_done": self._epochs_done,
            "global_step": trainer.global_step,
            "within_epoch": self._within_epoch,
            "step_pending": self._step_pending,
            "interval": self.interval,
            "schedulers": {
                str(i): scheduler.state_dict() for i, scheduler in enumerate(_schedulers(trainer))
            },
            "early_stopping": {
                str(i): self._after_validation(trainer, module, position, callback).state_dict()
                for i, (position, callback) in enumerate(_early_stopping(trainer))
            },
        }

    # Who steps what

    def _share_out_steps(self, schedulers: list[Any]) -> None:
        self._by_metric = [each for each in schedulers if isinstance(each, ReduceLROnPlateau)]
        others = [each for each in schedulers if not isinstance(each, ReduceLROnPlateau)]
        if self._by_metric and self.monitor is None:
            raise ValueError(
                "configure_optimizers returned a ReduceLROnPlateau, which is stepped with a "
                "metric: name it, as in SchedulerCheckpoint(monitor='val_loss')"
            )
        if self.monitor is not None and not self._by_metric:
            raise ValueError(
                f"monitor={self.monitor!r} is the metric of a ReduceLROnPlateau, but "
                f"configure_optimizers returned none"
            )
        if self.interval == "step" and not others:
            raise ValueError(
                "interval='step' steps the schedulers that configure_optimizers returned, and it "
                "returned none that is stepped without a metric: return (optimizer, scheduler)"
            )
        counts_updates = self.interval == "step"
        self._by_update = others if counts_updates else []
        self._by_trainer = [] if counts_updates else others

    def _waits_for_validation(self, trainer: Any) -> bool:
        return trainer.val_dataloaders is not None and not str(self.monitor).startswith("train_")

    def _step_with_metric(self, trainer: Any) -> None:
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise ValueError(
                f"ReduceLROnPlateau has no metric to be stepped with: monitor={self.monitor!r} was "
                f"not logged. Logged were {', '.join(map(repr, sorted(metrics)))}"
            )
        for scheduler in self._by_metric:
            scheduler.step(metrics[self.monitor])

    # What the Trainer is lent

    def _lend(self, trainer: Any, **attributes: Any) -> None:
        """Give the Trainer other values for a while, and its own back however ``fit`` ends."""
        if not self._lent:
            # braintools 0.3.0 tells no callback of an exception, but ends every fit with this.
            trainer._cleanup = functools.partial(self._clean_up, trainer)
        self._lent |= {name: getattr(trainer, name) for name in attributes}
        vars(trainer).update(attributes)

    def _give_back(self, trainer: Any) -> None:
        vars(trainer).update(self._lent)
        if self._lent:
            del trainer._cleanup  # the method of its class is left
        self._lent = {}

    def _clean_up(self, trainer: Any) -> None:
        self._give_back(trainer)
        trainer._cleanup()

    # Early stopping

    def _after_validation(
        self, trainer: Any, module: Any, position: int, callback: EarlyStopping
    ) -> EarlyStopping:
        """Return ``callback`` as it is once it has seen what was validated last.

        ``ModelCheckpoint`` may stand before it, and so save before it has seen that.
        """
        if self._before_validation.get(position) != vars(callback):
            return callback
        callback = copy.copy(callback)
        callback.verbose = False
        callback.on_validation_epoch_end(trainer, module)
        return callback

    # Resuming

    def _resume(
        self, trainer: Any, module: Any, path: str | os.PathLike[str], checkpoint: dict[str, Any]
    ) -> None:
        saved = checkpoint[_ENTRY]
        if saved["within_epoch"]:
            raise ValueError(
                f"{path} was saved within an epoch, where the Trainer cannot go on: resume from "
                f"a checkpoint of an epoch's end"
            )
        if saved.get("interval", "epoch") != self.interval:
            raise ValueError(
                f"{path} was saved with interval={saved.get('interval', 'epoch')!r}, and its "
                f"schedulers are at a count of those, but this run has "
                f"interval={self.interval!r}"
            )
        schedulers = _schedulers(trainer)
        if len(saved["schedulers"]) != len(schedulers):
            raise ValueError(
                f"{path} has {len(saved['schedulers'])} schedulers, but this run has "
                f"{len(schedulers)}"
            )
        states = [saved["schedulers"][str(i)] for i in range(len(schedulers))]
        # Restored into targets and copies first, which raises where something does not fit.
        parameters = msgpack_from_state_dict(
            module.state_dict(), checkpoint["model_state_dict"], "model_state_dict"
        )
        optimizers = msgpack_from_state_dict(
            [optimizer.state_dict() for optimizer in trainer.optimizers],
            checkpoint["optimizer_state_dict"],
            "optimizer_state_dict",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # loading itself warns
            for scheduler, state in zip(schedulers, states, strict=True):
                copy.deepcopy(scheduler).load_state_dict(state)

        for scheduler, state in zip(schedulers, states, strict=True):
            scheduler.load_state_dict(state)
        module.load_state_dict(parameters)
        for optimizer, state in zip(trainer.optimizers, optimizers, strict=True):
            optimizer.load_state_dict(state)
        if saved["step_pending"]:
            for scheduler in self._by_trainer:
                scheduler.step()
        waited_enough = False
        for i, (_, callback) in enumerate(_early_stopping(trainer)):
            callback.load_state_dict(saved.get("early_stopping", {}).get(str(i), {}))
            waited_enough |= callback.wait_count >= callback.patience

        self._offset = self._epochs_done = int(saved["epochs_done"])
        trainer.state.global_step = int(saved["global_step"])
        # The Trainer's loop always begins at 0, so it is given what is left.
        stopped = waited_enough and self._epochs_done >= trainer.min_epochs
        self._lend(trainer, max_epochs=0 if stopped else trainer.max_epochs - self._offset)


def _attach(trainer: Any) -> None:
    for i, scheduler in enumerate(trainer.schedulers):
        if isinstance(scheduler, LRScheduler) and scheduler.optimizer is None:
            if i >= len(trainer.optimizers):
                raise ValueError(
                    f"configure_optimizers returned a scheduler {i} that has no optimizer "
                    f"beside it: it returned {len(trainer.optimizers)} optimizers"
                )
            scheduler.attach_optimizer(trainer.optimizers[i])


def _scheduler_of(optimizer: Any) -> LRScheduler | None:
    owner = _upstream.scheduler_of(optimizer)
    return owner if isinstance(owner, LRScheduler) else None


def _named_rates(name: str, scheduler: LRScheduler) -> Iterator[tuple[str, float]]:
    """Return the applied rates, each under its group's name or number if there are several."""
    rates = scheduler.get_last_lr()
    for group, rate in enumerate(rates):
        known = group < len(scheduler.group_names)
        label = scheduler.group_names[group] if known else f"group{group}"
        yield (name if len(rates) == 1 else f"{name}/{label}"), float(rate)


def _schedulers(trainer: Any) -> list[LRScheduler]:
    """Return our schedulers that own an optimizer, stepped by the Trainer or not."""
    owners = map(_scheduler_of, trainer.optimizers)
    return [owner for owner in owners if owner is not None]


def _early_stopping(trainer: Any) -> Iterator[tuple[int, EarlyStopping]]:
    """Return each ``EarlyStopping`` and its position among the callbacks."""
    for position, callback in enumerate(trainer.callbacks):
        if isinstance(callback, EarlyStopping):
            yield position, callback


# Finding checkpoints


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint, and check that it has an entry of ours."""
    checkpoint = msgpack_load(path)
    if not isinstance(checkpoint, dict) or _ENTRY not in checkpoint:
        raise ValueError(f"{path} was saved without SchedulerCheckpoint: it has no scheduler")
    saved = checkpoint[_ENTRY]
    if not isinstance(saved, dict) or set(saved) - _LATER_KEYS != _KEYS:
        raise ValueError(
            f"{path} is damaged: its entry {_ENTRY!r} must have {sorted(_KEYS | _LATER_KEYS)}"
        )
    return checkpoint


def _folders(trainer: Any) -> list[Path]:
    """Return where the Trainer's checkpoints are."""
    saving = [each for each in trainer.callbacks if isinstance(each, ModelCheckpoint)]
    if not saving:
        raise ValueError(
            "resume_from='auto' looks into the folder of a ModelCheckpoint, and there is none "
            "among the Trainer's callbacks: add ModelCheckpoint(dirpath=...)"
        )
    return list(dict.fromkeys(Path(callback.dirpath) for callback in saving))


def _newest(folders: list[Path]) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that can be resumed, or None where there is none at all."""

    def written(path: Path) -> int:
        return path.stat().st_mtime_ns

    paths = sorted((path for folder in folders for path in folder.glob("*.ckpt")), key=written)
    within_an_epoch = []
    refused = []
    # A file system may count time in whole seconds: of files of one time, the epoch decides.
    for _, together in itertools.groupby(reversed(paths), key=written):
        found = []
        for path in together:
            try:
                checkpoint = _read(path)
            except (ValueError, InvalidCheckpointPath) as error:
                refused.append(f"{path.name} ({error})")
                continue
            if checkpoint[_ENTRY]["within_epoch"]:
                within_an_epoch.append(f"{path.name} (saved within an epoch)")
            else:
                found.append((path, checkpoint))
        if found:
            path, checkpoint = max(found, key=lambda entry: entry[1][_ENTRY]["epochs_done"])
            if refused:
                warnings.warn(
                    f"passed over {', '.join(refused)}, to resume from {path.name}, the newest "
                    f"checkpoint that is whole",
                    UserWarning,
                    stacklevel=2,
                )
            return path, checkpoint
    if paths:
        raise ValueError(
            f"no checkpoint in {', '.join(map(str, folders))} can be resumed: "
            f"{', '.join(refused + within_an_epoch)}. To begin anew, move them away"
        )
    return None
