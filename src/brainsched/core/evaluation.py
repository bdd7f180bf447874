"""From a formula to rates: all formulas are evaluated here, wherever their numbers live.

There are three ways, and all give the same bits:

- In NumPy, where the position and the schedule's numbers are on the host, for some epochs ahead.
- By a jitted kernel, where one of them is on a device. Nothing here waits for the device.
- As a part of the program that is being traced, where one of them is a tracer.

Each computes in float64, from an epoch in float64, and rounds once. In compiled code, 64-bit types
are enabled for the formula, and JAX's strict promotion is off: a formula is float64 arithmetic,
whatever the user's settings.

XLA turns a division by a constant into a product with its reciprocal, which may differ in the last
place. So this package's formulas multiply by the reciprocal in NumPy, too.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from brainsched import checks
from brainsched.core.arguments import BaseRates, JointBaseRates
from brainsched.link.states import inside_a_trace
from brainsched.types import (
    Array,
    epoch_dtype,
    largest_epoch,
    rate_dtype,
    smallest_rate,
)

Formula = Callable[[Any, Any, ModuleType], Any]
Bases = BaseRates | JointBaseRates

# From the module to calculate with and a position, of one or more scalars, to the next position.
# The rates are those at its last scalar.
Move = Callable[..., tuple[Array, ...]]

AHEAD = 128

# A negative rate that is smaller than this share of the highest base rate is rounding, and is 0.
_ROUNDING = 1e-12


@contextlib.contextmanager
def float64_arithmetic() -> Iterator[None]:
    """Let JAX compute in float64, by NumPy's rules of promotion."""
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def stay(xp: ModuleType, *position: Array) -> tuple[Array, ...]:
    """Return the same position."""
    return position


def advance(xp: ModuleType, epoch: Array) -> tuple[Array]:
    """Return the next position. On the host, going beyond the largest one raises."""
    if xp is jnp:
        return (jnp.maximum(epoch + 1, epoch),)  # stays at the largest epoch, where adding 1 wraps
    try:
        return (np.asarray(epoch.item() + 1, epoch.dtype),)
    except OverflowError as error:
        raise ValueError(f"last_epoch cannot go beyond {epoch}") from error


class _Window:
    """The rates of some epochs in a row, on the host.

    Parameters
    ----------
    start : int
        The first of the epochs.
    rates : array of shape ``(epochs, groups)``
        Their rates.
    before : _Window or None
        The previous window, whose latest list of rates is reused if equal.
    """

    __slots__ = ("_lists", "_rates", "_repeats", "latest", "start", "stop", "x64")

    def __init__(self, start: int, rates: np.ndarray, before: "_Window | None") -> None:
        rates.flags.writeable = False
        self.start, self.stop, self.x64 = start, start + len(rates), rates.dtype == np.float64
        self._rates = rates
        self._repeats = [False, *(rates[1:] == rates[:-1]).all(axis=1).tolist()]
        self._lists: list[list[Array] | None] = [None] * len(rates)
        self.latest: list[Array] = []
        if before is not None and before.latest and before.x64 == self.x64:
            self._lists[0] = before.latest if (rates[0] == before.latest).all() else None

    def at(self, epoch: int) -> list[Array]:
        """Return the rate of each group: the previous epoch's list if the rates are equal."""
        index = epoch - self.start
        found = self._lists[index]
        if found is None:
            if self._repeats[index]:
                found = self._lists[index - 1]
            if found is None:
                row = self._rates[index]
                found = [row[group, ...] for group in range(len(row))]
            self._lists[index] = found
        self.latest = found
        return found


class Evaluation:
    """The rates of a formula for a number of param groups with their base rates; immutable.

    Parameters
    ----------
    name : str
        The class of the schedule, for messages.
    formula : callable
        As :meth:`brainsched.LRScheduler.formula`.
    numbers : iterable
        Everything else that the formula is computed from. Where they live decides where it is
        evaluated.
    bases : BaseRates or JointBaseRates
        The base rates.
    groups : int
        The number of param groups.
    """

    def __init__(
        self, name: str, formula: Formula, numbers: Iterable[Any], bases: Bases, groups: int
    ) -> None:
        self.groups = groups
        self._name = name
        self._formula = formula
        self._bases = bases
        self.base_lrs = bases.first(max(groups, bases.known))
        leaves = [*numbers, *jax.tree.leaves(self.base_lrs[:groups])]
        arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
        self.calls_functions = any(map(callable, leaves))
        # A function that is passed inside a trace may use what is traced there.
        may_trace = self.calls_functions and inside_a_trace()
        self.on_host = not arrays and not may_trace
        self._base_arrays = self._stacked_bases(np) if self.on_host else None
        highest = max((base.max() for base in jax.tree.leaves(self._base_arrays)), default=0.0)
        self._negligible = max(_ROUNDING * highest, smallest_rate(rate_dtype()))
        self._window = _Window(0, np.empty((0, groups)), None)
        traced = may_trace or any([isinstance(array, jax.core.Tracer) for array in arrays])
        self._kernel = None if traced else jax.jit(self._in_jax, static_argnums=0)

    def __call__(self, move: Move, *position: Array) -> tuple[tuple[Array, ...], list[Array]]:
        """Return the position after ``move``, and the rate of each param group there.

        Parameters
        ----------
        move : callable
            A pure function, which must compare equal from call to call.
        *position : scalar arrays
            On the host, on a device, or traced.
        """
        if self.on_host:
            for scalar in position:
                if type(scalar) is not np.ndarray:
                    break
            else:
                position = move(np, *position)
                return position, self._at(position[-1].item())
        if self._kernel is None or any(isinstance(p, jax.core.Tracer) for p in position):
            return self._in_jax(move, *position)
        return self._kernel(move, *position)

    def rates(self, epoch: Any) -> Float[Array, "*epoch groups"]:
        """Return the rates at epochs, integer or real, of any shape.

        Raises
        ------
        ValueError
            If a rate is negative or not finite, on the host. Compiled code cannot raise, and gives
            0 for a negative rate.
        """
        if not self.on_host or isinstance(epoch, jax.Array):
            return self._rounded(epoch, jnp)
        rates = self._rounded(epoch, np)
        self._require_rates(rates, np.asarray(epoch))
        return rates

    def _in_jax(self, move: Move, *position: Array) -> tuple[tuple[Array, ...], list[Array]]:
        position = move(jnp, *position)
        rates = self._rounded(position[-1], jnp)
        return position, [
            jax.lax.index_in_dim(rates, group, axis=-1, keepdims=False)
            for group in range(self.groups)
        ]

    def _at(self, epoch: int) -> list[Array]:
        """Return the rates at an epoch on the host, in the same list while they do not change.

        NumPy takes about as long for a hundred epochs as for one, so they are evaluated ahead,
        and a step costs little more than a look-up.
        """
        window = self._window  # read once, since another thread may replace it
        x64 = jax.config.read("jax_enable_x64")
        if not window.start <= epoch < window.stop or window.x64 != x64:
            window = self._window = self._look_ahead(epoch, window)
        return window.at(epoch)

    def _look_ahead(self, epoch: int, before: _Window) -> _Window:
        """Evaluate the epochs from ``epoch`` on, or only it if the formula fails for later ones."""
        stop = min(epoch + AHEAD, largest_epoch() + 1)
        epochs = np.arange(epoch, stop, dtype=epoch_dtype())
        try:
            with np.errstate(all="ignore"):  # these epochs may never come
                rates = np.array(self._rounded(epochs, np))
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError):
            rates = np.array(self._rounded(epochs[:1], np))
        self._require_rates(rates[:1], epochs[:1])
        right = checks.are_rates(rates).all(axis=-1)
        # The next window begins at a wrong rate, and raises if its epoch comes.
        count = len(rates) if right.all() else int(right.argmin())
        return _Window(epoch, rates[:count], before)

    def require_compilable(self) -> None:
        """Raise a TypeError if compiled code cannot run the formula.

        Tracing is not enough: where 64-bit types are enabled for a part of a program only, JAX
        traces functions that it cannot lower, such as ``jnp.select`` (jax 0.10.2).
        """
        program = jax.jit(functools.partial(self._rounded, xp=jnp))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # JAX warns before it fails
                program.lower(jax.ShapeDtypeStruct((), epoch_dtype()))
        except (TypeError, ValueError, LookupError, NotImplementedError) as error:
            raise TypeError(
                f"compiled code cannot run {self._name}.formula: {error}\nUse functions of xp, and "
                f"xp.where instead of if, for what depends on the epoch"
            ) from error

    def _require_rates(self, rates: np.ndarray, epochs: np.ndarray) -> None:
        right = checks.are_rates(rates)
        if not right.all():
            *at, group = np.argwhere(~right)[0].tolist()
            raise ValueError(
                f"{self._name} gives param group {group} the rate {rates[*at, group]:.6g} at epoch "
                f"{epochs[*at]}: a rate must be finite and not negative"
            )

    def _rounded(self, epoch: Any, xp: ModuleType) -> Any:
        """Round once. Rates below the smallest normal number are 0, as in compiled code.

        On the host, a rate that is negative by more than rounding is left for the check.
        """
        dtype = rate_dtype()
        with float64_arithmetic():
            if xp is np:
                # A formula may still use JAX, even while something else is traced.
                with jax.ensure_compile_time_eval():
                    rates = self._unrounded(np.asarray(epoch, np.float64), np)
                is_none = (rates < smallest_rate(dtype)) & (rates >= -self._negligible)
            else:
                rates = self._unrounded(jnp.asarray(epoch, np.float64), jnp)
                is_none = rates < smallest_rate(dtype)
            return xp.where(is_none, np.float64(0), rates).astype(dtype)

    def _unrounded(self, epoch: Float[Array, "*epoch"], xp: ModuleType) -> Any:
        base_lrs = self._base_arrays
        if base_lrs is None:
            base_lrs = self._stacked_bases(xp)
        elif xp is jnp:
            base_lrs = jax.tree.map(jnp.asarray, base_lrs)
        rates = xp.asarray(self._formula(epoch[..., None], base_lrs, xp), np.float64)
        expected = (*epoch.shape, self.groups)
        if rates.shape == expected:
            return rates
        try:
            return xp.broadcast_to(rates, expected)
        except ValueError as error:
            raise ValueError(
                f"{self._name}.formula must return an array that broadcasts to {expected}, for "
                f"epochs of shape {(*epoch.shape, 1)} and {self.groups} base rate(s), got shape "
                f"{rates.shape}"
            ) from error

    def _stacked_bases(self, xp: ModuleType) -> Any:
        def stack(rates: list[Any]) -> Any:
            return xp.stack([xp.asarray(rate, np.float64) for rate in rates])

        if xp is np:
            return self._bases.arrays(self.groups, lambda rates: np.asarray(rates, np.float64))
        return self._bases.arrays(self.groups, stack)
