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
- A formula is evaluated in float64 and rounded once to float32, in NumPy on the host and in
  compiled code alike, so that both give the same bits.
"""

import copy
import inspect
import operator
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import braintools
import jax
import jax.numpy as jnp
import numpy as np
from brainstate import State, TraceContextError
from brainstate.graph import Node
from jaxtyping import Float, Int

from brainsched import _check, _checkpoint, _config, _graph, _param_groups, _upstream
from brainsched._base_rates import BaseRates, JointBaseRates
from brainsched._lookahead import Lookahead
from brainsched._states import EpochState, RatesState
from brainsched._types import (
    Array,
    Rate,
    Rates,
    epoch_dtype,
    rate_dtype,
    smallest_rate,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Bases = BaseRates | JointBaseRates


class LRScheduler(Node, braintools.optim.LRScheduler):
    """A learning-rate schedule for the param groups of a braintools optimizer.

    A subclass keeps each argument of its constructor as an attribute of the same name, calls
    this constructor last, and defines :meth:`formula`.

    Parameters
    ----------
    base_lr : float or sequence of float
        The rate at multiplier 1, of every param group or one for each. A traced or device array
        with at most one axis serves too.
    last_epoch : int
        The epoch to begin at.

    Attributes
    ----------
    optimizer : braintools.optim.OptaxOptimizer or None
        The optimizer whose rates this scheduler owns.
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
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> import brainsched
    >>> class HalvingLR(brainsched.LRScheduler):
    ...     def formula(self, epoch, base_lrs, xp):
    ...         return base_lrs * 0.5**epoch
    >>> HalvingLR(base_lr=0.8).lr_at([0, 1, 3]).tolist()
    [[0.800000011920929], [0.4000000059604645], [0.10000000149011612]]
    """

    optimizer: braintools.optim.OptaxOptimizer | None = None
    max_groups: int | None = None
    __signature__: inspect.Signature

    # The applied rates as a checkpoint brought them, until they are written again.
    _restored_lrs: list[Array] | None = None
    # Whether the optimizer's transformation has asked for the rate yet.
    _was_called = False
    # The epoch at which param groups joined or left last, and the rates held up to then.
    _waiting: tuple[Any, list[Array]] = (None, [])
    _kernel: Callable[[Any, int], tuple[Array, list[Array]]] | None = None
    # The States that a step depends on besides last_epoch, and the one that the formula is of.
    _memory: tuple[str, ...] = ()
    _position_name = "last_epoch"
    # What the class of this name in braintools saves.
    _braintools_keys: tuple[str, ...] = ("last_epoch", "base_lrs", "current_lrs")
    _not_copied: tuple[str, ...] = (
        "optimizer",
        "_restored_lrs",
        "_was_called",
        "_on_host_at",
        "_waiting",
        "_kernel",
    )

    def __init__(self, base_lr: Rates = 1e-3, last_epoch: int = 0) -> None:
        if isinstance(base_lr, braintools.optim.Optimizer):
            raise TypeError(
                f"base_lr must be a rate, got the optimizer {type(base_lr).__name__}. The order "
                f"here is {type(self).__name__}({', '.join(_config.parameters(type(self)))}); "
                f"give the scheduler to the optimizer: "
                f"{type(base_lr).__name__}(lr=scheduler)"
            )
        self.base_lr = base_lr
        self._begin(BaseRates(tuple(_check.base_rates("base_lr", base_lr))), last_epoch)

    def _begin(self, bases: _Bases, last_epoch: int) -> None:
        """Create the States."""
        self._first_epoch = _check.epoch("last_epoch", last_epoch)
        self.last_epoch = EpochState(self._first_epoch)
        self._current_lrs = RatesState([])
        self._hold(len(bases.listed), bases)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        signature = inspect.signature(cls.__init__)
        own = [p for name, p in signature.parameters.items() if name != "self"]
        cls.__signature__ = signature.replace(parameters=own)  # the metaclass's call hides it
        if cls.formula is not LRScheduler.formula:
            _config.register(cls)
        _graph.register(cls)

    # The schedule

    @abstractmethod
    def formula(
        self,
        epoch: Int[Array, "*epoch 1"],
        base_lrs: Any,
        xp: ModuleType,
    ) -> Float[Array, "*epoch groups"]:
        """Return the rates of every param group: the one method that a schedule writes.

        Parameters
        ----------
        epoch : integer array of shape ``(*epoch, 1)``
            The epochs asked for, none below 0.
        base_lrs : float64 array of shape ``(groups,)``
            The base rate of each group; in a composition, a tuple of each part's.
        xp : module
            ``numpy``, or ``jax.numpy`` with 64-bit types enabled: what to calculate with.

        Returns
        -------
        float64 array of shape ``(*epoch, groups)``
            Not rounded; the base does that.
        """
        raise NotImplementedError

    def lr_at(self, epoch: Any) -> Float[Array, "*epoch groups"]:
        """Return the scheduled rates at any epoch, or at many.

        Parameters
        ----------
        epoch : int, or sequence or array of int
            Epochs; a traced or device array is not checked, and below 0 counts as 0.

        Returns
        -------
        array of shape ``(*epoch.shape, n_groups)``
            In the rate's dtype: a NumPy array for an epoch on the host.

        Raises
        ------
        TypeError, ValueError
            If an epoch is not an integer, is negative or too large.
        """
        self._require_pure("lr_at()")
        if isinstance(epoch, list | tuple | range):
            epoch = np.asarray(epoch) if len(epoch) else np.zeros(0, epoch_dtype())
        return self._rates(_check.epoch("epoch", epoch))

    def as_optax(self, group: int = 0, steps_per_epoch: int = 1) -> Callable[[Any], Array]:
        """Return the rate of one param group as an ``optax.Schedule``, for optax and Flax.

        The position is the count that optax keeps; ``last_epoch`` plays no part. What happens to
        the scheduler later does not reach the schedule.

        Parameters
        ----------
        group : int
            An entry of ``base_lr``, or a column of a schedule with a column for each group.
        steps_per_epoch : int
            How many counts make an epoch.

        Returns
        -------
        callable
            From a count, traced or not, to the scheduled rate at epoch
            ``count // steps_per_epoch``, positive and in the rate's dtype.

        Raises
        ------
        TypeError, ValueError
            If there is no such group, or ``steps_per_epoch`` is not an integer of at least 1.

        See Also
        --------
        scale_by_scheduler : a rate for each group of parameters.
        """
        from brainsched import _optax  # the bridges stand on the base, which needs none of them

        return _optax.schedule(self, group, steps_per_epoch)

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
        self._require_tracking("step()")
        if epoch is None:
            now, rates = self._advance(self.last_epoch.value, 1)
        else:
            now, rates = self._advance(_check.epoch("epoch", epoch), 0)
        if not _same_on_host(rates, self._current_lrs.value):
            self._current_lrs.value = rates  # first, as it raises if a rate is not finite
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
        self._require_tracking("apply()")
        self._current_lrs.value = [apply_fn(rate) for rate in self.get_lr()]

    # What it shows

    def get_lr(self) -> list[Array]:
        """Return the scheduled rate of each param group at the present epoch."""
        _, rates = self._advance(self._position.value, 0)
        return list(rates)

    def get_last_lr(self) -> list[Array]:
        """Return the applied rate of each param group."""
        return list(self._current_lrs.value)

    def __call__(self, count: Any) -> Array:
        """Return minus the first group's applied rate, as ``optax.scale_by_schedule`` asks for.

        ``count`` plays no part: the position is ``last_epoch``.
        """
        self._require_tracking("the optimizer's step")
        self._was_called = True
        return -self._current_lrs.value[0]

    @property
    def epoch(self) -> int:
        """``last_epoch`` as an int; waits for the device where it is on one."""
        return int(self.last_epoch.value)

    @property
    def base_lrs(self) -> list[Rate]:
        """The base rate of each param group, and of those that a list ``base_lr`` waits for."""
        return self._bases.first(max(self._n_groups, self._bases.known))

    @property
    def config(self) -> dict[str, Any]:
        """The class and the arguments that rebuild this scheduler, in JSON types.

        See Also
        --------
        from_config : the way back.
        """
        return _config.config(self)

    def plot(self, epochs: int, ax: "Axes | None" = None) -> "Axes":
        """Draw the scheduled rates of the first epochs, with Matplotlib.

        Parameters
        ----------
        epochs : int
            How many epochs, at least 1.
        ax : matplotlib.axes.Axes, optional
            Where to draw. Default: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            With a line for each param group and a mark at each of ``stage_boundaries``,
            logarithmic where the rates span two decades or more.

        Raises
        ------
        TypeError, ValueError
            If ``epochs`` is not a positive integer.
        """
        from brainsched import _plot

        return _plot.plot(self, epochs, ax)

    @property
    def stage_boundaries(self) -> Sequence[int]:
        """The epochs at which another stage of the schedule begins, where it has any."""
        return ()

    def __repr__(self) -> str:
        rates = ", ".join(str(rate) for rate in self._current_lrs.value)
        call = _config.call(self, last_epoch=str(self.last_epoch.value))
        return f"{call}  # rates: {rates}"

    # Param groups

    def attach_optimizer(self, optimizer: braintools.optim.OptaxOptimizer) -> None:
        """Own the rates of all of ``optimizer``'s param groups, present and to come.

        ``SGD(lr=scheduler)`` does it by itself. An optimizer that was built with a plain rate, or
        with another scheduler, applies this one's rates from here on. A scheduler that has an
        optimizer already moves to the new one, with a warning.

        Raises
        ------
        TypeError
            If ``optimizer`` is not an ``OptaxOptimizer``.
        ValueError
            If there are more groups than the schedule has columns, or a group was added with an
            ``lr=`` that differs from its entry in ``base_lr``.
        """
        _param_groups.join(self, optimizer)

    def _check_group(self, group: int, lr: Any, bases: _Bases) -> _Bases:
        """Return ``bases`` with that of a param group, if it may join; change nothing."""
        if not _upstream.created_in_current_trace(self.last_epoch):
            raise TraceContextError(
                "a scheduler cannot take on a param group while a function is traced: the "
                "compiled program would not know of it. Add the group outside, before the "
                "training step is called; the next call traces again, once"
            )
        if self.max_groups is not None and group >= self.max_groups:
            raise ValueError(
                f"param group {group} has no rate: the schedule has columns for "
                f"{self.max_groups} groups"
            )
        return bases.adding(group, lr)

    def _detached(self, groups: int) -> "LRScheduler":
        """Return a copy for the bridges: ``groups`` param groups, no optimizer, at its first epoch.

        Its States are new, since under a transformation those of a scheduler that was built there
        cannot be copied.
        """
        kept = {
            name: value
            for name, value in vars(self).items()
            if name not in self._not_copied and not isinstance(value, State)
        }
        duplicate = type(self).__new__(type(self))
        duplicate.__dict__.update(kept)
        duplicate.last_epoch = EpochState(self._first_epoch)
        duplicate._current_lrs = RatesState([])
        bases = duplicate._bases
        for group in range(groups):
            bases = duplicate._check_group(group, None, bases)
        duplicate._hold(groups, bases)
        return duplicate

    def _hold(self, groups: int, bases: _Bases) -> None:
        """Hold rates for ``groups`` param groups; those held already stay as they are."""
        if self.max_groups is not None and groups > self.max_groups:
            raise ValueError(
                f"base_lr has {groups} entries, but the schedule has columns for "
                f"{self.max_groups} param groups"
            )
        self._n_groups = groups
        self._bases = bases
        self._compile()
        # A rate set by hand waits for its group, if the scheduler has moved, until the next step.
        present = self._current_lrs.value
        epoch, waiting = self._waiting
        waiting = waiting[len(present) :] if epoch is self.last_epoch.value else []
        held = present + waiting
        self._waiting = (self.last_epoch.value, held)
        self._current_lrs.replace_structure((held + self.get_lr()[len(held) :])[:groups])

    # Evaluation

    def _compile(self) -> None:
        """Find out where the schedule's numbers are, and how to evaluate it there."""
        leaves = list(self._leaves())
        # A user's function is evaluated through JAX, wherever the epoch is.
        self._on_host = not any(isinstance(leaf, jax.Array) or callable(leaf) for leaf in leaves)
        self._on_host_at = Lookahead(self._rates)
        self._base_arrays = (
            self._bases.arrays(self._n_groups, lambda rates: np.asarray(rates, np.float64))
            if self._on_host
            else None
        )
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        self._kernel = None if traced else jax.jit(self._advance_in_jax, static_argnums=1)

    def _leaves(self) -> Iterator[Any]:
        """Yield all that the rates are calculated from: numbers, arrays and functions."""
        names = [name for name in _config.parameters(type(self)) if name != "last_epoch"]
        arguments = [getattr(self, name) for name in names]
        for leaf in jax.tree.leaves([arguments, self._bases.first(self._n_groups)]):
            if isinstance(leaf, LRScheduler):
                yield from leaf._leaves()
            else:
                yield leaf

    @property
    def _position(self) -> State:
        """The State that the formula is a function of."""
        return getattr(self, self._position_name)

    def _require_pure(self, what: str) -> None:
        """Raise a TypeError if the rate depends on more than the epoch: ``what`` cannot be."""

    def _advance(self, epoch: Array, increment: int) -> tuple[Array, list[Array]]:
        """Return ``epoch + increment`` and its rates, where they are: host, device or trace."""
        if self._on_host and type(epoch) is np.ndarray:
            epoch = self._counted_on(epoch, increment)
            return epoch, self._on_host_at(epoch.item())
        if self._kernel is None or isinstance(epoch, jax.core.Tracer):
            return self._advance_in_jax(epoch, increment)
        return self._kernel(epoch, increment)

    def _counted_on(self, epoch: np.ndarray, increment: int) -> np.ndarray:
        if not increment:
            return epoch
        try:
            return np.array(epoch.item() + increment, epoch.dtype)
        except OverflowError as error:
            raise ValueError(f"last_epoch cannot go beyond {epoch}") from error

    def _advance_in_jax(self, epoch: Array, increment: int) -> tuple[Array, list[Array]]:
        epoch = jnp.add(epoch, increment) if increment else epoch
        rates = self._rates(epoch, jnp)
        return epoch, [
            jax.lax.index_in_dim(rates, group, axis=-1, keepdims=False)
            for group in range(self._n_groups)
        ]

    def _rates(
        self, epoch: Int[Array, "*epoch"], xp: ModuleType | None = None
    ) -> Float[Array, "*epoch groups"]:
        """Evaluate the formula in float64 and round it once."""
        dtype = rate_dtype()
        if xp is None:
            xp = np if self._on_host and isinstance(epoch, np.ndarray) else jnp
        if xp is np:
            return _rounded(self._unrounded(epoch, np), dtype, np)
        with jax.enable_x64(True):
            return _rounded(self._unrounded(epoch, jnp), dtype, jnp)

    def _unrounded(self, epoch: Int[Array, "*epoch"], xp: ModuleType) -> Float[Array, "..."]:
        base_lrs = self._base_arrays
        if base_lrs is None:
            base_lrs = self._bases.arrays(
                self._n_groups,
                lambda rates: xp.stack([xp.asarray(rate, np.float64) for rate in rates]),
            )
        elif xp is jnp:
            base_lrs = jax.tree.map(jnp.asarray, base_lrs)
        return self.formula(epoch[..., None], base_lrs, xp)

    def _require_tracking(self, what: str) -> None:
        """Raise under a plain JAX transformation: it would drop what is written to the States."""
        if _upstream.inside_brainstate_transform():
            return
        if not _upstream.created_in_current_trace(self.last_epoch):
            raise TraceContextError(
                f"{what} ran under a plain JAX transformation (jax.jit, jax.vmap, jax.grad, "
                f"jax.lax.scan, ...), which cannot track the scheduler's States: the schedule "
                f"would silently stand still. Use brainstate.transform.jit, vmap, grad, for_loop "
                f"or scan instead. In pure JAX, optax or Flax code, where no State is tracked, "
                f"make the rate a function of a step count that optax or you carry: "
                f"scheduler.as_optax(), brainsched.scale_by_scheduler, scheduler.lr_at(count)"
            )

    # Checkpoints and copies

    def _memory_of_braintools(self, applied: list[float]) -> dict[str, Any]:
        """Return what braintools' class of this name does not save, from its applied rates."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the rates, as copies in 0-d NumPy arrays.

        Returns
        -------
        dict
            ``last_epoch``, ``base_lrs``, ``current_lrs`` (applied), ``scheduled_lrs`` (by the
            schedule; where an applied rate differs, it was set by hand) and ``config``.
        """
        return _checkpoint.save(self)

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
        _checkpoint.load(self, state_dict)

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, tuple[type[State], Any]]]:
        attributes, states = {}, {}
        for name, value in self.__dict__.items():
            if isinstance(value, State):
                states[name] = (type(value), jax.tree.map(np.array, value.value))
            elif name not in self._not_copied:
                attributes[name] = value
        return attributes, states

    def __setstate__(self, state: Any) -> None:
        attributes, states = state
        self.__dict__.update(attributes)
        self.__dict__.update({name: cls(value) for name, (cls, value) in states.items()})
        self._hold(self._n_groups, self._bases)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LRScheduler":
        duplicate = type(self).__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return duplicate


def _rounded(rates: Float[Array, "*shape"], dtype: Any, xp: ModuleType) -> Float[Array, "*shape"]:
    """Round once; what is below the smallest normal number is 0, as compiled code has it."""
    return xp.where(rates < smallest_rate(dtype), 0.0, rates).astype(dtype)


def _same_on_host(rates: list[Array], others: list[Array]) -> bool:
    """Whether both lists are on the host and equal; never waits for a device."""
    if all(map(operator.is_, rates, others)):
        return True
    return all(
        type(rate) is type(other) is np.ndarray and rate == other
        for rate, other in zip(rates, others, strict=True)
    )
