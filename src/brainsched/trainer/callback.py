"""The bridge to ``braintools.trainer``: runs of its Trainer that can be stopped and resumed."""

import contextlib
import os
from typing import Any

from braintools.trainer import Callback, ModelCheckpoint

from brainsched import checks as schedule_checks
from brainsched.core.scheduler import LRScheduler
from brainsched.link import trainer_upstream
from brainsched.trainer import checkpoints, steps
from brainsched.trainer.steps import Steps


class SchedulerCheckpoint(Callback):
    """Put schedulers into the Trainer's log and checkpoints, and resume a run from one.

    A scheduler that ``configure_optimizers`` returned beside an optimizer is attached to it before
    the first epoch. The rates of all param groups are logged. Each checkpoint of
    ``ModelCheckpoint`` gets the states of all schedulers, returned or given as ``lr=`` alone.

    Parameters
    ----------
    resume_from : path or 'auto', optional
        A checkpoint that ``ModelCheckpoint`` saved at an epoch's end, or its ``last.ckpt``, in a
        run with this callback. With ``'auto'``, the newest such file in the folder of the
        ``ModelCheckpoint`` beside this callback, by its time of modification; the run begins at
        epoch 0 if there is none. A damaged newer file is passed over, with a warning.
    interval : {'epoch', 'step'}
        When a returned scheduler is stepped: once an epoch, by the Trainer, or once an update of
        the optimizer, by this callback.
    monitor : str, optional
        The metric in ``trainer.callback_metrics`` that a returned ``ReduceLROnPlateau`` is stepped
        with, once an epoch: after the epoch's training if its name begins with ``train_``, else
        after its validation.

    Raises
    ------
    TypeError, ValueError
        If ``interval`` is neither of the two. From ``fit``, before anything has changed: if a
        ``ModelCheckpoint`` stands before this callback; if a scheduler has no optimizer beside it,
        or a ``ReduceLROnPlateau`` no ``monitor``; if the checkpoint is damaged, was saved without
        this callback, within an epoch or with another ``interval``, or does not fit; if ``'auto'``
        finds only such files. Within ``fit``: if the metric ``monitor`` was not logged.

    Notes
    -----
    Resuming restores the model's parameters, the optimizers, the schedulers, and the memory of
    ``EarlyStopping`` and ``ModelCheckpoint``. It does not restore other States of the model or
    random keys, and the order of the data must depend on ``module.current_epoch`` alone.

    Examples
    --------
    Started again after an interruption, at whatever moment, the same program goes on::

        callbacks = [
            SchedulerCheckpoint(resume_from="auto"),
            ModelCheckpoint(dirpath="runs", monitor="val_loss"),  # the best three
            ModelCheckpoint(dirpath="runs", monitor="", filename="newest"),
        ]
        Trainer(max_epochs=90, callbacks=callbacks).fit(model, train_loader, val_loader)
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
        self._loan = contextlib.ExitStack()
        self._begin()

    def _begin(self) -> None:
        self._loan.close()  # what a fit that failed still has
        self._epochs_done, self._within_epoch, self._step_pending = 0, False, False
        # The hook at an epoch's end that is running, and the callbacks as they were before it.
        self._ending = ""
        self._before: dict[str, Any] = {}

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Attach the schedulers, and restore the checkpoint if there is one to resume from."""
        self._begin()
        before = trainer.callbacks[: trainer.callbacks.index(self)]
        if any(isinstance(callback, ModelCheckpoint) for callback in before):
            raise ValueError("SchedulerCheckpoint must stand before ModelCheckpoint in callbacks")
        self._steps = Steps(trainer, self.interval, self.monitor)
        steps.attach(trainer)
        path = self.resume_from
        if path is None:
            return
        found = checkpoints.newest(trainer) if path == "auto" else (path, checkpoints.read(path))
        if found is not None:
            path, checkpoint = found
            checkpoints.restore(trainer, module, path, checkpoint, self._steps)
            entry = checkpoint[checkpoints.ENTRY]
            trainer.state.global_step = int(entry["global_step"])
            module.global_step = int(checkpoint["global_step"])  # braintools 0.3.0 leaves it at 0
            self._epochs_done = int(entry["epochs_done"])
            trainer_upstream.pass_over(self._loan, trainer, module, self._epochs_done)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Give the Trainer back what it was lent at the end of the epoch before."""
        self._loan.close()
        self._within_epoch, self._step_pending = True, False
        self._before = {}

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Log the rates that the batch is trained at."""
        for name, rate in steps.named_rates(trainer):
            module.log(name, rate, prog_bar=True)

    def on_after_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Step the schedulers that count updates."""
        self._steps.after_update()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Step the schedulers whose metric is known, and let the Trainer step none of ours."""
        self._epochs_done = trainer.current_epoch + 1
        self._within_epoch, self._step_pending = False, bool(self._steps.by_trainer)
        self._steps.after(trainer, validation=False)
        trainer_upstream.lend(self._loan, trainer, schedulers=self._steps.for_trainer())
        self._note(trainer, "on_train_epoch_end")

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """Step the schedulers that depend on what was validated."""
        if not self._within_epoch:
            self._steps.after(trainer, validation=True)
            self._note(trainer, "on_validation_epoch_end")

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Note that the last epoch's step was taken."""
        self._loan.close()
        self._step_pending, self._before = False, {}

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the schedulers' states and the position to a checkpoint."""
        schedulers = steps.schedulers_of(trainer)
        waits = self._step_pending or (self._within_epoch and bool(self._steps.by_trainer))
        # What fit(ckpt_path=...) of braintools 0.4.0 reads: here, for those that we step, too.
        checkpoint["lr_schedulers_stepped"] = not waits
        checkpoint.setdefault("lr_schedulers", {}).update(
            (str(i), each.state_dict())
            for i, each in enumerate(self._steps.returned)
            if isinstance(each, LRScheduler)
        )
        checkpoint[checkpoints.ENTRY] = {
            "epochs_done": self._epochs_done,
            "global_step": trainer.global_step,
            "within_epoch": self._within_epoch,
            "step_pending": self._step_pending,
            "interval": self.interval,
            "schedulers": {str(i): each.state_dict() for i, each in enumerate(schedulers)},
            "callbacks": {
                name: checkpoints.memory_of(self._at_the_end(trainer, module, name, callback))
                for name, callback in checkpoints.remembering(trainer)
            },
        }

    def _note(self, trainer: Any, hook: str) -> None:
        """Keep the callbacks as they are before ``hook``, which is about to be called for them."""
        seen = trainer.callbacks[: trainer.callbacks.index(self)]
        self._ending = hook
        self._before = {
            name: trainer_upstream.silent_copy(callback)
            for name, callback in checkpoints.remembering(trainer)
            if callback not in seen
        }

    def _at_the_end(self, trainer: Any, module: Any, name: str, callback: Any) -> Any:
        """Return ``callback`` as it is at the end of the hook that is running.

        ``ModelCheckpoint`` saves a file before it counts it among its best, and before the
        callbacks behind it have seen the metric.
        """
        before = self._before.get(name)
        if before is None or callback.monitor not in trainer.callback_metrics:
            return callback
        return trainer_upstream.after(before, self._ending, trainer, module)
