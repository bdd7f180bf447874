"""The base class of every schedule: its position, its steps, and what it reports.

While training, one number changes, ``last_epoch``: the count of ``step()`` calls in whatever unit
the user steps, epochs or updates. The first epoch is 0: call ``scheduler.step()`` after the epoch
or update that it ends. The *scheduled* rate is what the schedule gives, ``get_lr``. The *applied*
rate is what the optimizer uses, ``get_last_lr``; it differs only if set by hand, until the next
step.
"""

import inspect
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import braintools
import jax
import numpy as np
from brainstate import State, TraceContextError
from brainstate.graph import Node

from brainsched import checks
from brainsched.core import arguments
from brainsched.core import config as configuring
from brainsched.core.arguments import BaseRates
from brainsched.core.checkpoint import Checkpointed
from brainsched.core.copies import Copied
from brainsched.core.evaluation import Bases, Evaluation, advance, stay
from brainsched.core.schedule import Schedule, compilable
from brainsched.core.states import EpochState
from brainsched.link.optimizer import attach
from brainsched.link.states import Rates, RatesState, Scheduled, inside_a_trace, restructure
from brainsched.types import Array, epoch_dtype
from brainsched.types import Rates as BaseLRs


class LRScheduler(Schedule, Checkpointed, Copied, Node, braintools.optim.LRScheduler):
    """A learning-rate schedule for the param groups of a braintools optimizer.

    A subclass keeps each argument of its constructor as an attribute of the same name, calls
    this constructor last, and defines :meth:`formula`. Once built, its attributes are fixed.

    Parameters
    ----------
    base_lr : float, sequence of float, or mapping from str to float
        The rate at multiplier 1: one for all param groups, or one for each. A mapping also names
        the groups: ``{'body': 1e-3, 'head': 1e-2}``. A traced or device array with at most one
        axis serves too.
    last_epoch : int
        The epoch to begin at.

    Attributes
    ----------
    last_epoch : brainstate.State
        The number of steps taken: a scalar int32 (int64 under ``jax_enable_x64``).
    current_lrs : brainstate.State
        The applied rates: a list with a scalar float32 (float64 under x64) for each param group.
    max_groups : int or None
        The number of param groups that the schedule has rates for, where that is limited.

    Raises
    ------
    TypeError, ValueError
        If an argument, or the shape of the formula's rates, is not as described.

    Examples
    --------
    >>> import brainsched
    >>> class HalvingLR(brainsched.LRScheduler):
    ...     def formula(self, epoch, base_lrs, xp):
    ...         return base_lrs * 0.5**epoch
    >>> HalvingLR(base_lr=0.8).lr_at([0, 1, 3]).tolist()
    [[0.800000011920929], [0.4000000059604645], [0.10000000149011612]]
    """

    last_epoch: Any
    optimizer: "braintools.optim.OptaxOptimizer | None" = None
    """The optimizer whose rates this scheduler writes."""

    _current_lrs: RatesState
    _bases: Bases
    _replaced_by: str | None = None  # until a step has warned of it
    # The content of _current_lrs once a checkpoint restored rates, and all of them.
    _restored: tuple[Any, Sequence[Any]] = (None, ())
    # The States that a step depends on besides last_epoch, and those that the formula is of.
    _memory: tuple[str, ...] = ()
    _position_names: tuple[str, ...] = ("last_epoch",)

    def __init__(self, base_lr: BaseLRs = 1e-3, last_epoch: int = 0) -> None:
        self.base_lr = base_lr
        listed = tuple(checks.base_rates("base_lr", base_lr))
        names = checks.group_names("base_lr", base_lr)
        self._begin(BaseRates(listed, names=names), last_epoch)

    def _begin(self, bases: Bases, last_epoch: int) -> None:
        """Create the States, and evaluate the formula for the first time."""
        self._first_epoch = checks.epoch_number("last_epoch", last_epoch)
        self.last_epoch = EpochState(np.asarray(self._first_epoch, epoch_dtype()))
        self._bases = bases
        arguments.fix(self)
        self._evaluation = self._evaluation_of(len(bases.listed), bases)
        _, rates = self._evaluation(stay, *self._position)
        # Once for each class of a user, since this compiles; again where a function is passed.
        is_known = type(self) in compilable and not self._evaluation.calls_functions
        if self._evaluation.on_host and not is_known:
            self._evaluation.require_compilable()
            compilable.add(type(self))
        self._current_lrs = RatesState(Rates(rates))
        self._is_built = True

    def __setattr__(self, name: str, value: Any) -> None:
        if "_is_built" not in self.__dict__:
            super().__setattr__(name, value)
        elif name == "last_epoch":  # as in PyTorch
            self.step(value)
        else:
            raise AttributeError(
                f"{type(self).__name__}.{name} cannot be assigned once the scheduler is built: "
                f"build a new one, or set the attribute before super().__init__()"
            )

    # Stepping

    def step(self, epoch: Any = None) -> None:
        """Go to the next epoch, or to ``epoch``, and apply its rates.

        Parameters
        ----------
        epoch : int or integer scalar array, optional
            The epoch to go to. A traced or device array is not checked, and below 0 counts as 0.

        Raises
        ------
        TypeError, ValueError
            If ``epoch`` is not an integer, is negative or too large.
        brainstate.TraceContextError
            If called under a plain JAX transformation, which does not track States.
        """
        if self._replaced_by is not None:
            self._warn_that_it_was_replaced()
        if epoch is None:
            (now,), rates = self._evaluation(advance, self.last_epoch.present)
        else:
            (now,), rates = self._evaluation(stay, checks.epoch("epoch", epoch))
        self._apply(rates)
        self.last_epoch.value = now

    def _apply(self, rates: Sequence[Array]) -> None:
        """Write the applied rates, unless they are there already."""
        applied = self._current_lrs.present
        if not all(map(operator.is_, rates, applied)):
            self._current_lrs.value = Scheduled(rates)

    def _warn_that_it_was_replaced(self) -> None:
        name, successor = type(self).__name__, self._replaced_by
        self.__dict__["_replaced_by"] = None  # first, as the warning may be an error
        message = f"this {name} drives no optimizer any more: a {successor} was attached instead"
        warnings.warn(message, UserWarning, stacklevel=3)

    def step_epoch(self) -> None:
        """Go to the next epoch: the same as :meth:`step` without an argument."""
        self.step()

    def apply(self, apply_fn: Callable[[Any], Any]) -> None:
        """Apply ``apply_fn(rate)`` instead of each group's scheduled rate until the next step.

        Raises
        ------
        TypeError, ValueError
            If a result is not a finite rate of at least 0; no rate changes then.
        """
        self._current_lrs.value = [apply_fn(rate) for rate in self.get_lr()]

    # What it reports

    def get_lr(self) -> list[Array]:
        """Return the scheduled rate of each param group at the present epoch."""
        if inside_a_trace():
            _ = self._current_lrs.value  # so that the program is traced again under another link
        _, rates = self._evaluation(stay, *self._position)
        return list(rates)

    def get_last_lr(self) -> list[Array]:
        """Return the applied rate of each param group; ``applied_rates`` has them as floats."""
        return list(self._current_lrs.value)

    @property
    def current_lrs(self) -> State:
        """The State of the applied rates."""
        return self._current_lrs

    @property
    def epoch(self) -> int:
        """``last_epoch`` as an int; waits for a device if it is on one."""
        return int(_known(self.last_epoch.value, "epoch", "last_epoch.value"))

    @property
    def applied_rates(self) -> list[float]:
        """The applied rate of each param group as a float, for loggers; may wait for a device."""
        rates = self._current_lrs.value
        return [float(_known(rate, "applied_rates", "get_last_lr()")) for rate in rates]

    @property
    def has_restored_rates(self) -> bool:
        """Whether the applied rates are those that a checkpoint of the scheduler restored."""
        return bool(self._restored[1]) and self._current_lrs.content is self._restored[0]

    @property
    def group_names(self) -> tuple[str, ...]:
        """The names of the param groups, if ``base_lr`` is a mapping."""
        return self._bases.names

    def __repr__(self) -> str:
        call = configuring.call(self, last_epoch=str(self.last_epoch.content))
        notes = ["rates: " + ", ".join(map(str, self._current_lrs.content))]
        waiting = max(len(self.base_lrs), self.max_groups or 0) - self._evaluation.groups
        if waiting:
            notes.append(f"waiting for param groups: {waiting}")
        if self.optimizer is None:
            notes.append("no optimizer")
        return f"{call}  # {'; '.join(notes)}"

    def __pretty_repr_item__(self, name: str, value: Any) -> tuple[str, Any] | None:
        """Show the arguments and the position within an optimizer, as brainstate 0.6 shows it."""
        if name == "last_epoch":
            now = value.content
            return name, now if isinstance(now, jax.core.Tracer) else now.tolist()
        return (name, value) if name in inspect.signature(type(self)).parameters else None

    # Param groups

    def attach_optimizer(self, optimizer: braintools.optim.OptaxOptimizer) -> None:
        """Drive ``optimizer``: write the rates of its param groups, present and to come.

        ``SGD(lr=scheduler)`` does it by itself. An optimizer that was built with a plain rate, or
        follows another scheduler, applies this one's rates from here on. A scheduler that is
        replaced keeps its epoch, drives nothing, and warns at its next :meth:`step`. An optimizer
        that does not read its rate, such as ``Rprop`` and ``Fromage``, warns at once.

        Raises
        ------
        TypeError, ValueError
            If ``optimizer`` is not an ``OptaxOptimizer``, this scheduler drives another one, or a
            param group has no rate, or two. Nothing has changed then.
        """
        attach(self, optimizer)

    def _evaluation_of(self, groups: int, bases: Bases) -> Evaluation:
        """Return the evaluation for a number of param groups, or raise; change nothing."""
        if self.max_groups is not None and groups > self.max_groups:
            raise ValueError(
                f"param group {groups - 1} has no rate: the schedule has "
                f"{self.max_groups} column(s)"
            )
        numbers = arguments.numbers(self)
        return Evaluation(type(self).__name__, self.formula, numbers, bases, groups)

    def _with_groups(self, claims: Sequence[tuple[Any, str | None]]) -> Any:
        """Return what :meth:`_have_groups` adopts for groups with these ``lr=`` and names."""
        groups, bases, names = len(claims), self._bases, self.group_names
        for group, (lr, name) in enumerate(claims):
            expected = names[group] if group < len(names) else name
            if name not in (None, expected):
                raise ValueError(
                    f"param group {group} is called {expected!r} in base_lr, got {name!r}: add the "
                    f"groups in its order"
                )
            bases = bases if lr is None else bases.adding(group, lr)
        evaluation = self._evaluation_of(groups, bases)
        _, scheduled = evaluation(stay, *self._position)
        restored = self._restored[1] if self.has_restored_rates else ()
        known = restored or self._current_lrs.value
        return evaluation, bases, Rates([*known[:groups], *scheduled[len(known) :]]), restored

    def _have_groups(self, having: Any) -> None:
        """Adopt what :meth:`_with_groups` returned."""
        evaluation, bases, rates, restored = having
        restructure(self._current_lrs, rates)
        self.__dict__.update(_evaluation=evaluation, _bases=bases, _restored=(rates, restored))

    @property
    def _position(self) -> list[Array]:
        """The scalars that the formula is a function of."""
        return [getattr(self, name).present for name in self._position_names]


def _known(value: Any, name: str, instead: str) -> Any:
    """Return a value as it is; raise in compiled code, where it is not known."""
    if isinstance(value, jax.core.Tracer):
        raise TraceContextError(
            f"{name} is a Python number, which is not known in compiled code: use {instead} there"
        )
    return value
