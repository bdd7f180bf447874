"""The bridge to ``braintools.trainer``: runs of its Trainer that can be stopped and resumed."""

import contextlib
import os
from typing import Any

from braintools.trainer import Callback, ModelCheckpoint

from brainsched.core.scheduler import LRScheduler
from brainsched.link import trainer_upstream
from brainsched.schedules import schedule_checks
from brainsched.trainer import checkpoints, steps
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
        self._loan = contextlib.ExitStack()
        self._begin()

    def _begin(self) -> None:
        self._loan.close()  # what a fit that failed still has
        self._epochs_done = 0
        self._within_epoch = False
        self._step_pending = False
        # The hook at an epoch's end that is running, and the callbacks as they were before it.
        self._ending = ""
        self._before: dict[str, Any] = {}

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Attach the schedulers, and restore the checkpoint if there is one to resume from."""
        self._begin()
        before = trainer.callbacks[: trainer.callbacks.index(self)]
        if any(isinstance(callback, ModelCheckpoint) for callback in before):
            raise ValueError(
                "SchedulerCheckpoint must stand before ModelCheckpoint in the Trainer's "
                "callbacks, so that it knows what is saved"
            )
        self._steps = Steps(trainer, self.interval, self.monitor)
        steps.attach(trainer)
        if self.resume_from == "auto":
            newest = checkpoints.newest(checkpoints.folders(trainer))
            if newest is not None:
                self._resume(trainer, module, *newest)
        elif self.resume_from is not None:
            path = os.fspath(self.resume_from)
            self._resume(trainer, module, path, checkpoints.read(path))

    def _resume(
        self, trainer: Any, module: Any, path: str | os.PathLike[str], checkpoint: dict[str, Any]
    ) -> None:
        checkpoints.restore(trainer, module, path, checkpoint, self._steps)
        entry = checkpoint[checkpoints.ENTRY]
        trainer.state.global_step = int(entry["global_step"])
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
        # What fit(ckpt_path=...) of braintools 0.4.0 reads, for those that it does not step, too.
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
                for name, _, callback in checkpoints.remembering(trainer)
            },
        }

    def _note(self, trainer: Any, hook: str) -> None:
        """Keep the callbacks as they are before ``hook``, which is about to be called for them."""
        position = trainer.callbacks.index(self)
        self._ending = hook
        self._before = {
            name: trainer_upstream.silent_copy(callback)
            for name, i, callback in checkpoints.remembering(trainer)
            if i > position
        }

    def _at_the_end(self, trainer: Any, module: Any, name: str, callback: Any) -> Any:
        """Return ``callback`` as it is at the end of the hook that is running.

        ``ModelCheckpoint`` saves a file before it counts it among its best, and before the
        callbacks behind it have seen the metric.
        """
        if name in self._before and callback.monitor in trainer.callback_metrics:
            callback = trainer_upstream.silent_copy(self._before[name])
            getattr(callback, self._ending)(trainer, module)
        return callback
