"""What a scheduler saves, and how it is restored: all is checked before anything is written."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from brainsched import checks
from brainsched.core import config as configuring
from brainsched.core.evaluation import stay
from brainsched.types import rate_dtype

_KEYS = ("last_epoch", "base_lrs", "current_lrs", "scheduled_lrs", "config")
# What braintools 0.3.0 and 0.4.0 save, for the class of the same name.
_BRAINTOOLS = ("last_epoch", "base_lrs", "current_lrs")
_BRAINTOOLS_BY_CLASS = {
    "CosineAnnealingWarmRestarts": (*_BRAINTOOLS, "T_cur", "T_i"),
    "ReduceLROnPlateau": (*_BRAINTOOLS, "best", "num_bad_epochs", "cooldown_counter"),
    "SequentialLR": ("last_epoch", "schedulers", "milestones", "current_scheduler_idx"),
    "ChainedScheduler": ("last_epoch", "schedulers"),
}


class Checkpointed:
    """The part of a scheduler that is saved and restored."""

    def state_dict(self: Any, plain: bool = False) -> dict[str, Any]:
        """Return the position and the rates, as copies in 0-d NumPy arrays, or in Python numbers.

        Parameters
        ----------
        plain : bool
            Whether to return JSON types alone, for JSON, YAML and msgpack. What is loaded from it
            has the same bits.

        Returns
        -------
        dict
            ``last_epoch``, ``base_lrs``, ``current_lrs`` (applied), ``scheduled_lrs`` (by the
            schedule; where an applied rate differs, it was set by hand) and ``config``.

        Examples
        --------
        >>> import brainsched
        >>> state = brainsched.ConstantLR(0.5, factor=0.5).state_dict(plain=True)
        >>> state["last_epoch"], state["base_lrs"], state["current_lrs"]
        (0, [0.5], [0.25])
        """
        copy = (lambda value: np.array(value).item()) if plain else np.array
        return {
            "last_epoch": copy(self.last_epoch.value),
            "base_lrs": list(map(copy, self._evaluation.base_lrs)),
            "current_lrs": list(map(copy, self.get_last_lr())),
            "scheduled_lrs": list(map(copy, self.get_lr())),
            "config": configuring.config(self),
            **{name: copy(getattr(self, name).value) for name in self._memory},
        }

    def load_state_dict(self: Any, state_dict: Mapping[str, Any]) -> None:
        """Go to the position of a checkpoint, and apply the rates there, in the optimizer too.

        The schedule and its base rates come from the code. Rates that were set by hand are restored
        where the schedule's own are what they were.

        Parameters
        ----------
        state_dict : dict
            What :meth:`state_dict` returned, or what a file format made of it: numbers or arrays,
            lists or dicts keyed ``'0'``, ``'1'``. The dict of braintools' class of the same name
            loads too: its position is used, and the rates are computed anew.

        Raises
        ------
        TypeError, ValueError
            If an entry is missing, unknown, or not as expected, or the number of param groups
            differs. Scheduler and optimizer are then as they were.

        Warns
        -----
        UserWarning
            If the code's schedule differs from the one that was saved, with the rate of each group
            before and after.
        """
        ours, theirs = (*_KEYS, *self._memory), braintools_keys(self)
        is_ours = isinstance(state_dict, Mapping) and any(key in state_dict for key in ours[3:5])
        checks.keys("state_dict", state_dict, ours if is_ours else theirs, "scheduler.state_dict()")
        saved = state_dict if is_ours else {**state_dict, **_missing_memory(self, state_dict)}
        positions = {
            name: getattr(self, name).check(f"state_dict[{name!r}]", _on_host(saved[name]))
            for name in ("last_epoch", *self._memory)
        }
        position = [positions[name] for name in self._position_names]
        _, rates = self._evaluation(stay, *position)
        if is_ours:
            rates = _rates_of_ours(self, saved, list(rates), int(positions["last_epoch"]))
        # All is checked: from here on nothing raises.
        for name, value in positions.items():
            getattr(self, name).value = value
        self._apply(rates)
        content = self._current_lrs.content
        self.__dict__["_restored"] = content, list(content)


def _rates_of_ours(scheduler: Any, saved: Mapping[str, Any], rates: list[Any], epoch: int) -> Any:
    """Return the rates to apply; warn if the schedule's rates differ from the saved ones."""
    applied, scheduled = (
        _rates(saved, key, len(rates)) for key in ("current_lrs", "scheduled_lrs")
    )
    changed = _changed(scheduler, saved, epoch)
    same = [_same(old, new) for old, new in zip(scheduled, rates, strict=True)]
    if not all(same) or changed:
        what = ", ".join(changed) or "its formula"
        groups = ", ".join(
            f"group {group}: {_shown(old)} -> {_shown(new)}"
            for group, (old, new) in enumerate(zip(applied, rates, strict=True))
            if not same[group]
        )
        effect = f"changes the rate of {groups}" if groups else "has the same rates there"
        warnings.warn(
            f"the checkpoint was saved with another schedule ({what} changed). The schedule of the "
            f"code holds from epoch {epoch} on, and {effect}",
            UserWarning,
            stacklevel=3,
        )
    return [
        rate if hand == plan or not kept else np.asarray(hand, rate_dtype())
        for rate, hand, plan, kept in zip(rates, applied, scheduled, same, strict=True)
    ]


def _changed(scheduler: Any, saved: Mapping[str, Any], epoch: int) -> list[str]:
    """Return the names of the arguments that differ from those that were saved.

    A branch also takes checkpoints of the schedule that it leaves.
    """
    before = saved["config"]
    if not isinstance(before, Mapping):
        raise TypeError(f"state_dict['config'] must be a dict, got {type(before).__name__}")
    trunks = [scheduler]
    while trunks[-1]._trunk is not None:
        trunks.append(trunks[-1]._trunk)
    found = [
        configuring.differences(before, trunk.config)
        for trunk in trunks
        if trunk.config["class"] == before.get("class")
    ]
    if not found:
        raise ValueError(
            f"state_dict['config']['class'] is {before.get('class')!r}, but this scheduler is a "
            f"{' of a '.join(trunk.config['class'] for trunk in trunks)}: to continue at its "
            f"epoch, call step({epoch})"
        )
    base_lrs = [
        checks.number("state_dict['base_lrs']", _on_host(rate)) for rate in _list(saved, "base_lrs")
    ]
    present = scheduler.base_lrs
    same_bases = len(base_lrs) == len(present) and all(map(_same, base_lrs, present))
    names = min(found, key=len)
    if names == ["base_lr"] and same_bases:
        return []  # a base rate has moved between lr= of a group and base_lr
    return names if names or same_bases else ["base_lrs"]


def braintools_keys(scheduler: Any) -> tuple[str, ...]:
    """Return the keys of what braintools' class of the same name saves."""
    return _BRAINTOOLS_BY_CLASS.get(type(scheduler).__name__, _BRAINTOOLS)


def _missing_memory(scheduler: Any, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return what braintools does not save: the number of reductions of a ReduceLROnPlateau."""
    if "reductions" not in scheduler._memory:
        return {}
    rate, base = _rates(state_dict, "current_lrs", None)[0], float(scheduler.base_lrs[0])
    times = math.log(rate / base) / math.log(scheduler.factor) if rate and base else 0
    return {"reductions": max(round(times), 0)}


def _rates(state_dict: Mapping[str, Any], key: str, groups: int | None) -> list[float]:
    rates = [
        checks.number(f"state_dict[{key!r}][{i}]", _on_host(rate))
        for i, rate in enumerate(_list(state_dict, key))
    ]
    if groups is not None and groups != len(rates):
        cure = "add the groups first, then load" if groups < len(rates) else "load, then add groups"
        raise ValueError(
            f"state_dict[{key!r}] has rates for {len(rates)} param group(s), but the scheduler has "
            f"{groups}: {cure}"
        )
    return rates


def _list(state_dict: Mapping[str, Any], key: str) -> list[Any]:
    entries = configuring.as_list(state_dict[key])
    return checks.sequence(f"state_dict[{key!r}]", entries, "rates, one a param group")


def _on_host(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, jax.Array) else value


def _same(saved: float, rate: Any) -> bool:
    return configuring.same_number(saved, float(rate))


def _shown(rate: Any) -> str:
    return f"{float(rate):.6g}"
