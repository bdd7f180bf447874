"""The base of every schedule: where it stands, how it steps, and what it shows.

A schedule is a pure function of the epoch. A subclass writes that function, :meth:`formula`, and
all else follows from it here: the rates that a step applies, those that are reported, and any
epoch's rates at any time. While training one number changes, ``last_epoch``, the count of
``step()`` calls in whatever unit the user steps: epochs, or updates.

Conventions, for every schedule:

- The first epoch is 0. Call ``scheduler.step()`` after the epoch, or the update, that it ends.
- The *scheduled* rate is what the schedule gives, :meth:`LRScheduler.get_lr`. The *applied* rate
  is what the optimizer uses, :meth:`LRScheduler.get_last_lr`; it differs only if it was set by
  hand, and then until the next step.
- A formula is a function of a real epoch, evaluated in float64 and rounded once to float32, in
  NumPy on the host and in compiled code alike, so that both give the same bits.
"""

import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import braintools
import jax
import numpy as np
from brainstate import State
from brainstate.graph import Node

from brainsched import checks
from brainsched.core import arguments, copies, foreign_calls, missed, rebuilding
from brainsched.core import checkpoint as checkpointing
from brainsched.core import config as configuring
from brainsched.core.base_rates import BaseRates
from brainsched.core.evaluation import Bases, Evaluation, advance, stay
from brainsched.core.schedule import Schedule
from brainsched.core.states import AppliedRates, EpochState, RatesState, require_rates
from brainsched.link import attachment as attaching
from brainsched.link import optimizer as optimizers
from brainsched.link import tracing, upstream
from brainsched.types import Array, Rate, Rates


class LRScheduler(Schedule, Node, braintools.optim.LRScheduler):
    """A learning-rate schedule for the param groups of a braintools optimizer.

    A subclass keeps each argument of its constructor as an attribute of the same name, calls
    this constructor last, and defines :meth:`formula`. Once built, its attributes are fixed.

    Parameters
    ----------
    base_lr : float, sequence of float, or mapping from str to float
        The rate at multiplier 1, of every param group or one for each, which a mapping also gives
        a name: ``{'body': 1e-3, 'head': 1e-2}``. A traced or device array with at most one axis
        serves too.
    last_epoch : int
        The epoch to begin at.

    Attributes
    ----------
    last_epoch : brainstate.State
        The number of steps taken: a scalar int32 (int64 under ``jax_enable_x64``).
    current_lrs : brainstate.State
        The applied rates: a list with a scalar float32 (float64 under ``jax_enable_x64``) for
        each param group.
    max_groups : int or None
        How many param groups the schedule has rates for, where that is limited.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the formula's rates have another shape than
        described; the message names it.

    Examples
    --------
    >>> import brainsched
    >>> class HalvingLR(brainsched.LRScheduler):
    ...     def formula(self, epoch, base_lrs, xp):
    ...         return base_lrs * 0.5**epoch
    >>> HalvingLR(base_lr=0.8).lr_at([0, 1, 3]).tolist()
    [[0.800000011920929], [0.4000000059604645], [0.10000000149011612]]
    """

    last_epoch: Any = arguments.NotBuilt()
    _current_lrs: Any = arguments.NotBuilt()
    __signature__: inspect.Signature

    # What links it to the optimizer that it drives, if it does.
    _attachment: "attaching.Attachment | None" = None
    # Whether all is well with its link, or it was asked once if something is amiss.
    _was_missed = False
    # Whether optax was given its schedule, and counts by itself.
    _is_in_optax = False
    # How it lost the optimizer that it drove, if it did.
    _lost: str | None = None
    # The States that a step depends on besides last_epoch, and the one that the formula is of.
    _memory: tuple[str, ...] = ()
    _position_name = "last_epoch"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse another library's call."""
        new = super().__new__(cls)
        foreign_calls.check(cls, args, kwargs)
        return new

    def __init__(self, base_lr: Rates = 1e-3, last_epoch: int = 0) -> None:
        self.base_lr = base_lr
        listed = tuple(checks.base_rates("base_lr", base_lr))
        checks.warn_of_a_count("base_lr", base_lr)
        self._begin(BaseRates(listed, names=checks.group_names("base_lr", base_lr)), last_epoch)

    def _begin(self, bases: Bases, last_epoch: int) -> None:
        """Create the States, and evaluate the formula for the first time."""
        self._first_epoch = checks.epoch_number("last_epoch", last_epoch)
        self.last_epoch = EpochState(self._first_epoch)
        self._current_lrs = RatesState([])
        arguments.fix(self)
        groups, position = len(bases.listed), self._position.value
        evaluation, rates = self._first_evaluation(groups, bases, position)
        self._have_groups(evaluation, bases, rates)
        rebuilding.check(self)
        self._is_built = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        signature = inspect.signature(cls.__init__)
        # The metaclass's call hides it. Without types: help() spells out an alias in 150 letters.
        own = [p.replace(annotation=p.empty) for p in signature.parameters.values()][1:]
        cls.__signature__ = signature.replace(parameters=own, return_annotation=signature.empty)
        if cls.formula is not LRScheduler.formula:
            configuring.register(cls)
        copies.register(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_is_built" not in self.__dict__:
            super().__setattr__(name, value)
        elif name == "last_epoch":  # as users of PyTorch write it
            self.step(value)
        else:
            arguments.refuse(self, name)

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
        tracing.require(self.last_epoch, "step()")
        if not self._was_missed:
            missed.warn_if_missed(self, epoch)
        if epoch is None:
            (now,), rates = self._evaluation(advance, self.last_epoch.value)
        else:
            (now,), rates = self._evaluation(stay, checks.epoch("epoch", epoch))
        if not _same_on_host(rates, self._current_lrs.value):
            # First, as it raises if a rate is not finite.
            self._current_lrs.value = AppliedRates(rates)
        self.last_epoch.value = now

    def step_epoch(self) -> None:
        """Go to the next epoch: the same as :meth:`step` without an argument."""
        self.step()

    def apply(self, apply_fn: Callable[[Any], Any]) -> None:
        """Apply ``apply_fn(rate)`` in place of each group's scheduled rate until the next step.

        Parameters
        ----------
        apply_fn : callable
            From a scalar rate to a scalar rate.

        Raises
        ------
        TypeError, ValueError
            If a result is not a finite rate of at least 0; no rate changes then.
        brainstate.TraceContextError
            If called under a plain JAX transformation.
        """
        tracing.require(self.last_epoch, "apply()")
        if not callable(apply_fn):
            raise TypeError(
                f"apply_fn must be a function from a rate to a rate, as lambda rate: 0.5 * rate, "
                f"got {checks.shown(apply_fn)}"
            )
        self._current_lrs.value = [apply_fn(rate) for rate in self.get_lr()]

    # What it shows

    def get_lr(self) -> list[Array]:
        """Return the scheduled rate of each param group at the present epoch."""
        tracing.require(self.last_epoch, "get_lr()")
        _, rates = self._evaluation(stay, self._position.value)
        return list(rates)

    def get_last_lr(self) -> list[Array]:
        """Return the applied rate of each param group; waits for the device where one is on it.

        Raises
        ------
        ValueError
            If compiled code set a rate by hand that is negative, infinite or NaN.

        See Also
        --------
        applied_rates : the same as floats.
        """
        tracing.require(self.last_epoch, "get_last_lr()")
        if upstream.called_by_a_plain_optimizer():
            raise RuntimeError(
                f"an optimizer to which a {type(self).__name__} was only added would report rates "
                f"that it does not apply: write scheduler.attach_optimizer(optimizer) in the place "
                f"of optimizer.add_scheduler(scheduler)"
            )
        attaching.note_that_rates_were_read(self)
        rates = list(self._current_lrs.value)
        require_rates(rates)
        return rates

    def __call__(self, count: Any) -> Array:
        """Return minus the first group's applied rate, as ``optax.scale_by_schedule`` asks for.

        ``count`` plays no part: the position is ``last_epoch``.

        Raises
        ------
        TypeError
            If optax asks for a rate to go downhill with, which is positive: where the scheduler
            was given as ``optax.sgd(scheduler)``, or to any other part of optax that takes a rate.
        """
        if upstream.optax_wants_a_positive_rate():
            raise TypeError(
                f"optax was given a {type(self).__name__} in the place of a rate, and would go "
                f"uphill: a scheduler gives minus the rate, for optax.scale_by_schedule alone. "
                f"Give optax scheduler.as_optax(), whose position is optax's own count; in an "
                f"optimizer of braintools, chain optax.scale_by_schedule(scheduler)"
            )
        return -attaching.applied_rate(self)

    @property
    def current_lrs(self) -> State:
        """The State of the applied rates."""
        attaching.note_that_rates_were_read(self)
        return self._current_lrs

    @property
    def optimizer(self) -> braintools.optim.OptaxOptimizer | None:
        """The optimizer whose rates this scheduler owns."""
        return None if self._attachment is None else self._attachment.optimizer

    @property
    def epoch(self) -> int:
        """``last_epoch`` as an int; waits for the device where it is on one."""
        tracing.require(self.last_epoch, "epoch")
        what = f"{type(self).__name__}.epoch"
        return int(tracing.known(self.last_epoch.value, what, "last_epoch.value"))

    @property
    def applied_rates(self) -> list[float]:
        """The applied rate of each param group as a float, for loggers; waits for the device."""
        rates = self.get_last_lr()
        what = f"each of {type(self).__name__}.applied_rates"
        return [float(tracing.known(rate, what, "get_last_lr()", "a float")) for rate in rates]

    @property
    def base_lrs(self) -> list[Rate]:
        """The base rate of each param group, and of those that a list ``base_lr`` waits for."""
        return arguments.FixedList(self._bases.first(max(self._n_groups, self._bases.known)))

    @property
    def group_names(self) -> tuple[str, ...]:
        """The names that a mapping ``base_lr`` gives to the param groups, from the first one on."""
        return self._bases.names

    def __repr__(self) -> str:
        rates = ", ".join(str(rate) for rate in self._current_lrs.value)
        call = configuring.call(self, last_epoch=str(self.last_epoch.value))
        return f"{call}  # rates: {rates}"

    def __pretty_repr_item__(self, name: str, value: Any) -> tuple[str, Any] | None:
        """Show the arguments and the position within an optimizer, as brainstate 0.6 shows it."""
        if name == "last_epoch":
            now = value.value
            return name, now if isinstance(now, jax.core.Tracer) else now.tolist()
        return (name, value) if name in configuring.parameters(type(self)) else None

    # Param groups

    def attach_optimizer(self, optimizer: braintools.optim.OptaxOptimizer) -> None:
        """Own the rates of all of ``optimizer``'s param groups, present and to come.

        ``SGD(lr=scheduler)`` does it by itself. An optimizer that was built with a plain rate, or
        with another scheduler, applies this one's rates from here on; the other one is then on
        its own, where it stood. A scheduler that has an optimizer already moves to the new one,
        with a warning, and the former one keeps the rates that it has.

        Raises
        ------
        TypeError
            If ``optimizer`` is not an ``OptaxOptimizer``.
        ValueError
            If there are more groups than the schedule has columns, or a group was added with an
            ``lr=`` that differs from its entry in ``base_lr``. Nothing has changed then.
        """
        attaching.attach(self, optimizer)
        optimizers.make_scheduled(optimizer)

    def _with_groups(
        self, groups: int, bases: Bases, held: Sequence[Array]
    ) -> tuple[Evaluation, Bases, list[Array]]:
        """Return what :meth:`_have_groups` takes; raise if something is wrong; change nothing.

        ``held`` are the rates that the first groups keep; the others run at the scheduled ones.
        """
        evaluation = self._evaluation_of(groups, bases)
        self._require_use(evaluation, bases.first(groups))
        _, scheduled = evaluation(stay, self._position.value)
        rates = AppliedRates([*held, *scheduled[len(held) :]][:groups])
        return evaluation, bases, self._current_lrs.normalise(rates, None)

    def _have_groups(self, evaluation: Evaluation, bases: Bases, rates: list[Array]) -> None:
        """Have these param groups, with these applied rates."""
        self.__dict__.update(_evaluation=evaluation, _bases=bases, _n_groups=evaluation.groups)
        self._current_lrs.replace_structure(rates)

    @property
    def _position(self) -> State:
        """The State that the formula is a function of."""
        return getattr(self, self._position_name)

    # Checkpoints and copies

    def state_dict(self, plain: bool = False) -> dict[str, Any]:
        """Return the position and the rates, as copies in 0-d NumPy arrays, or in Python numbers.

        Parameters
        ----------
        plain : bool
            Whether the numbers are ints and floats, so that all of it is JSON types: for JSON,
            YAML and msgpack. What is loaded from it has the same bits.

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
        return checkpointing.save(self, plain)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the position of a checkpoint and apply its rates, in the optimizer too.

        The schedule and its base rates come from the code. Where they differ from the
        checkpoint's, a warning names them, and the code's schedule holds from the restored epoch.

        Parameters
        ----------
        state_dict : dict
            What :meth:`state_dict` gave, as it is or as a file format made it: numbers or arrays,
            lists or dicts keyed ``'0'``, ``'1'``. The dict of braintools' class of the same name
            loads too: its position counts, and the rates are computed anew.

        Raises
        ------
        TypeError, ValueError
            If anything in it is missing, unknown, or not as expected, or if the number of param
            groups differs. Scheduler and optimizer are then as they were.
        """
        checkpointing.load(self, state_dict)

    def __getstate__(self) -> Any:
        return copies.getstate(self)

    def __setstate__(self, state: Any) -> None:
        copies.setstate(self, state)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LRScheduler":
        return copies.deepcopy(self, memo)


def _same_on_host(rates: Iterable[Array], others: Iterable[Array]) -> bool:
    """Whether both lists are on the host and equal; never waits for a device."""
    if all(map(operator.is_, rates, others)):
        return True
    return all(
        type(rate) is type(other) is np.ndarray and rate == other
        for rate, other in zip(rates, others, strict=True)
    )
