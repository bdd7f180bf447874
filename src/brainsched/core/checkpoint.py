"""What a scheduler saves, and how it comes back: checked as a whole, and written only then."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from brainsched import checks
from brainsched.core import braintools_checkpoints
from brainsched.core import config as configuring
from brainsched.core.evaluation import stay
from brainsched.link.attachment import Unwritten
from brainsched.types import rate_dtype

if TYPE_CHECKING:
    from brainsched.core.scheduler import LRScheduler

_KEYS = ("last_epoch", "base_lrs", "current_lrs", "scheduled_lrs", "config")


def save(scheduler: "LRScheduler", plain: bool) -> dict[str, Any]:
    """Return the state of ``scheduler``: see :meth:`LRScheduler.state_dict`."""

    def copy(value: Any) -> Any:
        return np.array(value).item() if plain else np.array(value)

    return {
        "last_epoch": copy(scheduler.last_epoch.value),
        "base_lrs": [copy(rate) for rate in scheduler.base_lrs],
        "current_lrs": [copy(rate) for rate in scheduler.get_last_lr()],
        "scheduled_lrs": [copy(rate) for rate in scheduler.get_lr()],
        "config": scheduler.config,
        **{name: copy(getattr(scheduler, name).value) for name in scheduler._memory},
    }


def load(scheduler: "LRScheduler", state_dict: Mapping[str, Any]) -> None:
    """Restore what :func:`save` returned: see :meth:`LRScheduler.load_state_dict`."""
    ours = _check_keys(state_dict, scheduler)
    applied = _rates(state_dict, "current_lrs") if "current_lrs" in state_dict else []
    missing = {} if ours else braintools_checkpoints.missing_memory(scheduler, applied)
    positions = {
        name: getattr(scheduler, name).check(
            f"state_dict[{name!r}]", _on_host({**state_dict, **missing}[name])
        )
        for name in ("last_epoch", *scheduler._memory)
    }
    _, rates = scheduler._evaluation(stay, positions[scheduler._position_name])

    if ours:
        scheduled = _rates(state_dict, "scheduled_lrs")
        _check_groups("current_lrs", applied, scheduler)
        _check_groups("scheduled_lrs", scheduled, scheduler)
        base_lrs = _rates(state_dict, "base_lrs")
        epoch = int(positions["last_epoch"])
        change = _change(scheduler, state_dict["config"], base_lrs, scheduled, rates, epoch)
        if change:
            groups = ", ".join(
                f"group {group}: {_before(hand, plan)} -> {_after(rate)}"
                for group, (hand, plan, rate) in enumerate(
                    zip(applied, scheduled, rates, strict=True)
                )
            )
            checks.warn(
                f"the checkpoint was saved with another schedule: {change}. The schedule of the "
                f"code holds from epoch {epoch} on, and changes the rate of {groups}"
            )
        else:
            rates = [
                rate if hand == plan else np.asarray(hand, rate_dtype())
                for rate, hand, plan in zip(rates, applied, scheduled, strict=True)
            ]
    for name, value in positions.items():
        getattr(scheduler, name).value = value
    scheduler.current_lrs.value = rates
    if scheduler._attachment is not None:
        scheduler._attachment.restored = Unwritten(scheduler.current_lrs)


def _on_host(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, jax.Array) else value


def _check_keys(state_dict: Any, scheduler: "LRScheduler") -> bool:
    """Check that all keys are there and no other; return whether it is ours, or braintools'."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"state_dict must be a dict, as scheduler.state_dict() gives, got "
            f"{type(state_dict).__name__}"
        )
    ours = (*_KEYS, *scheduler._memory)
    theirs = braintools_checkpoints.keys(scheduler)
    is_ours = any(key in state_dict for key in ours if key not in theirs)
    expected = ours if is_ours else theirs
    for key in expected:
        if key not in state_dict:
            raise ValueError(
                f"state_dict has no {key!r}; expected {', '.join(expected)}: give all that "
                f"scheduler.state_dict() gave"
            )
    for key in state_dict:
        if key not in expected:
            raise ValueError(
                f"state_dict has an unknown key {key!r}; expected {', '.join(ours)}: give what "
                f"scheduler.state_dict() gave, and no more"
            )
    return is_ours


def _rates(state_dict: Mapping[str, Any], key: str) -> list[float]:
    name = f"state_dict[{key!r}]"
    entries = checks.sequence(
        name, configuring.as_list(state_dict[key]), "rates, one a param group"
    )
    return [checks.number(f"{name}[{i}]", _on_host(rate)) for i, rate in enumerate(entries)]


def _check_groups(key: str, rates: list[float], scheduler: "LRScheduler") -> None:
    if len(rates) != scheduler._n_groups:
        raise ValueError(
            f"state_dict[{key!r}] has the rates of {len(rates)} param groups, but the scheduler "
            f"has {scheduler._n_groups}: add the groups to the optimizer first, then load"
        )


def _before(applied: float, scheduled: float) -> str:
    """Return the rate of a group when the checkpoint was saved, for a message."""
    by_hand = "" if applied == scheduled else f" (by hand; scheduled was {scheduled:.6g})"
    return f"{applied:.6g}{by_hand}"


def _after(rate: Any) -> str:
    """Return the rate of a group by the schedule of the code, for a message."""
    return "a traced rate" if isinstance(rate, jax.core.Tracer) else f"{float(rate):.6g}"


def _same_rates(scheduled: list[float], rates: list[Any]) -> bool:
    return not any(isinstance(rate, jax.core.Tracer) for rate in rates) and all(
        map(configuring.same_number, scheduled, map(float, rates))
    )


def _trunks(scheduler: "LRScheduler") -> "Iterator[LRScheduler]":
    """Yield a scheduler, the one that it branched off from, and so on."""
    trunk: LRScheduler | None = scheduler
    while trunk is not None:
        yield trunk
        trunk = trunk._trunk


def _change(
    scheduler: "LRScheduler",
    saved: Any,
    base_lrs: list[float],
    scheduled: list[float],
    rates: list[Any],
    epoch: int,
) -> str:
    """Say what the code has changed since the checkpoint; raise if it is another class's.

    A checkpoint of the schedule that ``scheduler`` branched off from is one of its own, as long as
    both have the same rates at the restored epoch.
    """
    if not isinstance(saved, Mapping):
        raise TypeError(f"state_dict['config'] must be a dict, got {type(saved).__name__}")
    trunks = list(_trunks(scheduler))
    differences = {
        i: configuring.differences(saved, trunk.config)
        for i, trunk in enumerate(trunks)
        if trunk.config["class"] == saved.get("class")
    }
    if not differences:
        present = ", branched off from a ".join(
            configuring.name_of(type(trunk)) for trunk in trunks
        )
        raise ValueError(
            f"state_dict['config']['class'] is {saved.get('class')!r}, but this scheduler is a "
            f"{present}: load it into one of the class that saved it, or go on at its epoch, with "
            f"step({epoch})"
        )
    nearest, names = next(iter(differences.items()))
    same = next((i for i, found in differences.items() if not found), None)
    present_lrs = [float(rate) for rate in scheduler.base_lrs]
    same_base_lrs = len(base_lrs) == len(present_lrs) and all(
        map(configuring.same_number, base_lrs, present_lrs)
    )
    # What was given as lr= of a group may be an entry of base_lr now.
    if same is None and not (same_base_lrs and nearest == 0 and names == ["base_lr"]):
        return f"{', '.join(names)} changed"
    if not same_base_lrs:
        return "base_lrs changed"
    if same and not _same_rates(scheduled, rates):
        branch: Any = trunks[same - 1]
        name = saved["class"]
        return (
            f"it is of the {name}, which this {type(branch).__name__} leaves with at={branch.at}, "
            f"and the {name} went on to epoch {epoch}. To leave it there, build one with "
            f"at={epoch}; else load what was saved up to epoch {branch.at}"
        )
    return ""
