"""Which schedulers the callback steps and which the Trainer steps, and what of them is logged."""

from collections.abc import Iterator
from typing import Any

from brainsched.core.scheduler import LRScheduler
from brainsched.schedules import ReduceLROnPlateau


class Steps:
    """The schedulers that ``configure_optimizers`` returned: some are stepped by the Trainer."""

    def __init__(self, returned: list[Any], interval: str, monitor: str | None) -> None:
        self.returned, self.interval, self._monitor = returned, interval, monitor
        self._by_metric = [each for each in returned if isinstance(each, ReduceLROnPlateau)]
        others = [each for each in returned if each is not None and each not in self._by_metric]
        self.by_update, self.by_trainer = (others, []) if interval == "step" else ([], others)

    def attach(self, trainer: Any) -> None:
        """Attach each scheduler that was returned beside an optimizer and has none."""
        if self._by_metric and self._monitor is None:
            raise ValueError("ReduceLROnPlateau needs SchedulerCheckpoint(monitor='val_loss')")
        if self.interval == "step" and not self.by_update:
            raise ValueError("interval='step' steps what is returned: return optimizer, scheduler")
        for i, scheduler in enumerate(self.returned):
            if isinstance(scheduler, LRScheduler) and scheduler.optimizer is None:
                if i >= len(trainer.optimizers):
                    raise ValueError(f"no optimizer was returned for scheduler {i}")
                scheduler.attach_optimizer(trainer.optimizers[i])

    def after(self, trainer: Any, *, validation: bool) -> None:
        """Step those whose metric is known once the epoch was trained, or validated."""
        waits = trainer.val_dataloaders is not None and not str(self._monitor).startswith("train_")
        if not self._by_metric or waits is not validation:
            return
        metrics = trainer.callback_metrics
        if self._monitor not in metrics:
            logged = ", ".join(map(repr, sorted(metrics)))
            raise ValueError(f"monitor={self._monitor!r} was not logged, only {logged}")
        for scheduler in self._by_metric:
            scheduler.step(metrics[self._monitor])


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
