"""Which schedulers the callback steps and which the Trainer steps, and what of them is logged."""

from collections.abc import Iterator
from typing import Any

from brainsched.core.scheduler import LRScheduler
from brainsched.schedules import ReduceLROnPlateau


class Steps:
    """The schedulers that ``configure_optimizers`` returned, by who steps them.

    Parameters
    ----------
    trainer : braintools.trainer.Trainer
        Its schedulers are looked at now.
    interval : {'epoch', 'step'}
        Whether those that need no metric are stepped by the Trainer, or here, once an update.
    monitor : str or None
        The metric of those that need one.

    Raises
    ------
    ValueError
        If ``interval`` or ``monitor`` applies to no scheduler, or one has no metric.
    """

    def __init__(self, trainer: Any, interval: str, monitor: str | None) -> None:
        self.interval = interval
        self._monitor = monitor
        self.returned = list(trainer.schedulers)
        self._by_metric = [each for each in self.returned if isinstance(each, ReduceLROnPlateau)]
        others = [
            each
            for each in self.returned
            if hasattr(each, "step") and not isinstance(each, ReduceLROnPlateau)
        ]
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
                "interval='step' steps the schedulers that configure_optimizers returned, but it "
                "returned none that is stepped without a metric: return (optimizer, scheduler)"
            )
        self._by_update = others if interval == "step" else []
        self.by_trainer = others if interval == "epoch" else []

    def for_trainer(self) -> list[Any]:
        """Return the schedulers, with None for each that the Trainer is not to step."""
        kept = set(map(id, self.by_trainer))
        return [each if id(each) in kept else None for each in self.returned]

    def after_update(self) -> None:
        """Step those that count updates."""
        for scheduler in self._by_update:
            scheduler.step()

    def after(self, trainer: Any, *, validation: bool) -> None:
        """Step those whose metric is known once the epoch was trained, or validated."""
        waits = trainer.val_dataloaders is not None and not str(self._monitor).startswith("train_")
        if not self._by_metric or waits is not validation:
            return
        metrics = trainer.callback_metrics
        if self._monitor not in metrics:
            raise ValueError(
                f"ReduceLROnPlateau has no metric: monitor={self._monitor!r} was not logged. "
                f"Logged were {', '.join(map(repr, sorted(metrics)))}"
            )
        for scheduler in self._by_metric:
            scheduler.step(metrics[self._monitor])


def attach(trainer: Any) -> None:
    """Attach each scheduler that was returned beside an optimizer and has none."""
    for i, scheduler in enumerate(trainer.schedulers):
        if isinstance(scheduler, LRScheduler) and scheduler.optimizer is None:
            if i >= len(trainer.optimizers):
                raise ValueError(
                    f"configure_optimizers returned a scheduler {i} that has no optimizer "
                    f"beside it: it returned {len(trainer.optimizers)} optimizers"
                )
            scheduler.attach_optimizer(trainer.optimizers[i])


def schedulers_of(trainer: Any) -> list[LRScheduler]:
    """Return our schedulers that drive an optimizer, stepped by the Trainer or not."""
    drivers = [optimizer.lr_scheduler for optimizer in trainer.optimizers]
    return [driver for driver in drivers if isinstance(driver, LRScheduler)]


def named_rates(trainer: Any) -> Iterator[tuple[str, float]]:
    """Yield the applied rates, each under its group's name or number if there are several."""
    for i, optimizer in enumerate(trainer.optimizers):
        scheduler = optimizer.lr_scheduler
        if isinstance(scheduler, LRScheduler):
            rates, names = scheduler.get_last_lr(), scheduler.group_names
            for group, rate in enumerate(rates):
                label = names[group] if group < len(names) else f"group{group}"
                yield (f"lr-opt{i}" if len(rates) == 1 else f"lr-opt{i}/{label}"), float(rate)
