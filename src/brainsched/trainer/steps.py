"""Who steps which scheduler of braintools' Trainer, and what the Trainer is lent meanwhile."""

import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from brainsched.core.scheduler import LRScheduler
from brainsched.schedules import ReduceLROnPlateau


class Steps:
    """The schedulers that ``configure_optimizers`` returned, by who steps them.

    Parameters
    ----------
    schedulers : sequence
        All of them.
    interval : {'epoch', 'step'}
        Whether those that need no metric are stepped by the Trainer, or here, once an update.
    monitor : str or None
        The metric of those that need one.

    Raises
    ------
    ValueError
        If ``interval`` or ``monitor`` has no scheduler that it is of, or one has no metric.
    """

    def __init__(self, schedulers: Sequence[Any], interval: str, monitor: str | None) -> None:
        self._monitor = monitor
        self._by_metric = [each for each in schedulers if isinstance(each, ReduceLROnPlateau)]
        others = [each for each in schedulers if not isinstance(each, ReduceLROnPlateau)]
        if self._by_metric and monitor is None:
            raise ValueError(
                "configure_optimizers returned a ReduceLROnPlateau, which is stepped with a "
                "metric: name it, as in SchedulerCheckpoint(monitor='val_loss')"
            )
        if monitor is not None and not self._by_metric:
            raise ValueError(
                f"monitor={monitor!r} is the metric of a ReduceLROnPlateau, but "
                f"configure_optimizers returned none"
            )
        if interval == "step" and not others:
            raise ValueError(
                "interval='step' steps the schedulers that configure_optimizers returned, and it "
                "returned none that is stepped without a metric: return (optimizer, scheduler)"
            )
        self._by_update = others if interval == "step" else []
        self.by_trainer = others if interval == "epoch" else []

    def none_steps(self, trainer: Any) -> list[tuple[LRScheduler, int]]:
        """Return the schedulers that neither the Trainer nor this steps, each with its epoch."""
        stepped = [*self._by_metric, *self._by_update, *self.by_trainer]
        return [(each, each.epoch) for each in schedulers_of(trainer) if each not in stepped]

    def after_update(self) -> None:
        """Step those that count updates."""
        for scheduler in self._by_update:
            scheduler.step()

    def after_training(self, trainer: Any) -> None:
        """Step those whose metric is known once the epoch was trained."""
        if self._by_metric and not self._waits_for_validation(trainer):
            self._step_with_metric(trainer)

    def after_validation(self, trainer: Any) -> None:
        """Step those whose metric is known once the epoch was validated."""
        if self._by_metric and self._waits_for_validation(trainer):
            self._step_with_metric(trainer)

    def _waits_for_validation(self, trainer: Any) -> bool:
        return trainer.val_dataloaders is not None and not str(self._monitor).startswith("train_")

    def _step_with_metric(self, trainer: Any) -> None:
        metrics = trainer.callback_metrics
        if self._monitor not in metrics:
            raise ValueError(
                f"ReduceLROnPlateau has no metric to be stepped with: monitor={self._monitor!r} "
                f"was not logged. Logged were {', '.join(map(repr, sorted(metrics)))}"
            )
        for scheduler in self._by_metric:
            scheduler.step(metrics[self._monitor])


def warn_if_nobody_steps(trainer: Any, schedulers: Sequence[tuple[LRScheduler, int]]) -> None:
    """Warn of schedulers whose rates should change, and which stand where they stood."""
    for scheduler, epoch in schedulers:
        if scheduler.epoch == epoch and _changes(scheduler, trainer.max_epochs):
            name = type(scheduler).__name__
            warnings.warn(
                f"nothing has stepped the {name} of an optimizer in an epoch: let "
                f"configure_optimizers return it beside the optimizer, return optimizer, "
                f"scheduler, or step it in a hook of the module",
                stacklevel=2,
            )


def _changes(scheduler: LRScheduler, epochs: int) -> bool:
    if isinstance(scheduler, ReduceLROnPlateau):  # it depends on its metric
        return True
    first, *others = np.asarray(scheduler.lr_at(scheduler.epoch + np.arange(epochs)))
    return any((rates != first).any() for rates in others)


# What the Trainer is lent


def lend(lent: dict[str, Any], trainer: Any, **attributes: Any) -> None:
    """Give the Trainer other values for a while, and its own back however ``fit`` ends.

    ``lent`` gets the Trainer's own.
    """
    # braintools 0.3.0 tells no callback of an exception, but ends every fit with this.
    trainer._cleanup = functools.partial(_clean_up, lent, trainer)
    for name in attributes:
        lent.setdefault(name, getattr(trainer, name))
    vars(trainer).update(attributes)


def give_back(lent: dict[str, Any], trainer: Any) -> None:
    """Give the Trainer its own values back."""
    vars(trainer).update(lent)
    if lent:
        del trainer._cleanup  # the method of its class is left
    lent.clear()


def _clean_up(lent: dict[str, Any], trainer: Any) -> None:
    give_back(lent, trainer)
    trainer._cleanup()


# The schedulers of its optimizers


def attach(trainer: Any) -> None:
    """Attach each scheduler that was returned beside an optimizer, and has none."""
    for i, scheduler in enumerate(trainer.schedulers):
        if isinstance(scheduler, LRScheduler) and scheduler.optimizer is None:
            if i >= len(trainer.optimizers):
                raise ValueError(
                    f"configure_optimizers returned a scheduler {i} that has no optimizer "
                    f"beside it: it returned {len(trainer.optimizers)} optimizers"
                )
            scheduler.attach_optimizer(trainer.optimizers[i])


def schedulers_of(trainer: Any) -> list[LRScheduler]:
    """Return our schedulers that own an optimizer, stepped by the Trainer or not."""
    owners = map(_scheduler_of, trainer.optimizers)
    return [owner for owner in owners if owner is not None]


def named_rates(trainer: Any) -> Iterator[tuple[str, float]]:
    """Yield the applied rates, each under its group's name or number if there are several."""
    for i, scheduler in enumerate(map(_scheduler_of, trainer.optimizers)):
        rates = [] if scheduler is None else scheduler.get_last_lr()
        for group, rate in enumerate(rates):
            names = scheduler.group_names if scheduler is not None else ()
            label = names[group] if group < len(names) else f"group{group}"
            yield (f"lr-opt{i}" if len(rates) == 1 else f"lr-opt{i}/{label}"), float(rate)


def _scheduler_of(optimizer: Any) -> LRScheduler | None:
    owner = optimizer.lr_scheduler
    return owner if isinstance(owner, LRScheduler) else None
