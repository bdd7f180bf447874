"""The bridge to ``braintools.trainer``: runs of its Trainer that can be stopped and resumed."""

import copy
import math
import os
from typing import Any

from braintools.trainer import Callback, EarlyStopping, ModelCheckpoint

from brainsched.core.scheduler import LRScheduler
from brainsched.schedules import schedule_checks
from brainsched.trainer import checkpoints as checkpointing
from brainsched.trainer import steps
from brainsched.trainer.steps import Steps


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
    fails where an optimizer has a state, whose moments it gives as dictionaries that a file made,
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

    Warns
    -----
    UserWarning
        Once, after the first epoch, if nothing has stepped a scheduler whose rates should change.

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
    how long ``EarlyStopping`` has waited, and what ``ModelCheckpoint`` knows of its best. Other
    States of the model and random keys are not in these checkpoints, and the order of the data must
    depend on nothing but ``module.current_epoch``.

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
        self.interval = schedule_checks.one_of("interval", interval, ["epoch", "step"])
        self.monitor = monitor
        self._lent: dict[str, Any] = {}
        self._begin()

    def _begin(self) -> None:
        self._offset = 0
        self._epochs_done = 0
        self._within_epoch = False
        self._step_pending = False
        self._before_validation: dict[int, dict[str, Any]] = {}
        # The schedulers that only the user's code may step, while the first epoch is trained.
        self._unstepped: list[tuple[LRScheduler, int]] = []
        # The hook at an epoch's end that is running.
        self._ending: str | None = None

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Attach the schedulers, and restore the checkpoint if there is one to resume from."""
        steps.give_back(self._lent, trainer)  # what a fit that failed still has
        self._begin()
        before = trainer.callbacks[: trainer.callbacks.index(self)]
        if any(isinstance(callback, ModelCheckpoint) for callback in before):
            raise ValueError(
                "SchedulerCheckpoint must stand before ModelCheckpoint in the Trainer's "
                "callbacks, so that it knows what is saved"
            )
        schedulers = [each for each in trainer.schedulers if hasattr(each, "step")]
        self._steps = Steps(schedulers, self.interval, self.monitor)
        steps.attach(trainer)
        if self.resume_from == "auto":
            newest = checkpointing.newest(checkpointing.folders(trainer))
            if newest is not None:
                self._resume(trainer, module, *newest)
        elif self.resume_from is not None:
            path = os.fspath(self.resume_from)
            self._resume(trainer, module, path, checkpointing.read(path))

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Count on from the epochs before the resumption, where the Trainer counts from 0."""
        steps.give_back(self._lent, trainer)
        steps.warn_if_nobody_steps(trainer, self._unstepped)
        begins = trainer.state.epoch == 0
        self._unstepped = self._steps.none_steps(trainer) if begins else []
        trainer.state.epoch += self._offset
        module.current_epoch = trainer.state.epoch
        self._within_epoch, self._step_pending = True, False
        self._before_validation, self._ending = {}, None

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Log the rates that the batch is trained at."""
        for name, rate in steps.named_rates(trainer):
            module.log(name, rate, prog_bar=True)

    def on_after_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Step the schedulers that count updates."""
        self._steps.after_update()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Note that the epoch has ended, and let the Trainer do what its own count is wrong for."""
        self._epochs_done = trainer.state.epoch + 1
        self._within_epoch, self._step_pending = False, bool(self._steps.by_trainer)
        self._ending = "on_train_epoch_end"
        self._steps.after_training(trainer)

        every = trainer.check_val_every_n_epoch
        validates = self._epochs_done % every == 0
        steps.lend(
            self._lent,
            trainer,
            min_epochs=trainer.min_epochs - self._offset,
            check_val_every_n_epoch=1 if validates else math.inf,
            schedulers=self._steps.by_trainer,
        )

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """Step the schedulers that depend on what was validated."""
        self._before_validation = {
            i: dict(vars(callback))
            for i, callback in checkpointing.callbacks(trainer, EarlyStopping)
            if i > trainer.callbacks.index(self)
        }
        if not self._within_epoch:
            self._ending = "on_validation_epoch_end"
            self._steps.after_validation(trainer)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Note that the last epoch's step was taken."""
        steps.give_back(self._lent, trainer)
        self._step_pending, self._ending = False, None

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the schedulers' states and the position to a checkpoint."""
        schedulers = steps.schedulers_of(trainer)
        stopping = checkpointing.callbacks(trainer, EarlyStopping)
        saving = checkpointing.callbacks(trainer, ModelCheckpoint)
        checkpoint[checkpointing.ENTRY] = {
            "epochs_done": self._epochs_done,
            "global_step": trainer.global_step,
            "within_epoch": self._within_epoch,
            "step_pending": self._step_pending,
            "interval": self.interval,
            "schedulers": {str(i): each.state_dict() for i, each in enumerate(schedulers)},
            "early_stopping": {
                str(i): self._after_validation(trainer, module, position, each).state_dict()
                for i, (position, each) in enumerate(stopping)
            },
            "model_checkpoints": {
                str(i): checkpointing.memory_of(each, self._ending, trainer, module)
                for i, (_, each) in enumerate(saving)
            },
        }

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

    def _resume(
        self, trainer: Any, module: Any, path: str | os.PathLike[str], checkpoint: dict[str, Any]
    ) -> None:
        checkpointing.restore(trainer, module, path, checkpoint, self.interval)
        saved = checkpoint[checkpointing.ENTRY]
        if saved["step_pending"]:
            for scheduler in self._steps.by_trainer:
                scheduler.step()
        self._offset = self._epochs_done = int(saved["epochs_done"])
        trainer.state.global_step = int(saved["global_step"])
        waited_enough = any(
            stopping.wait_count >= stopping.patience
            for _, stopping in checkpointing.callbacks(trainer, EarlyStopping)
        )
        # The Trainer's loop always begins at 0, so it is given what is left.
        stopped = waited_enough and self._epochs_done >= trainer.min_epochs
        left = 0 if stopped else trainer.max_epochs - self._offset
        steps.lend(self._lent, trainer, max_epochs=left)
