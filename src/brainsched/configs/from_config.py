"""The way from a config to a scheduler, whatever read the config from its file."""

import contextlib
import inspect
import numbers
import pkgutil
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from brainsched import checks
from brainsched.core import config as configuring
from brainsched.core.scheduler import LRScheduler

UNITS = ("ep", "st", "run", "tok", "sp")
_EACH_STEP = {"tok": "tokens_per_step", "sp": "samples_per_step"}
_LENGTH = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)([A-Za-z]+|%)")
# Integers, but not in the unit in which the scheduler is stepped.
_NO_LENGTHS = ("T_mult", "cycles", "epochs", "steps_per_epoch")
# A file of a few lines can be large without end: YAML's aliases share parts.
_DEEPEST, _MOST_MAPPINGS, _MOST_VALUES = 64, 1_000, 1_000_000


def from_config(
    config: Mapping[str, Any],
    *,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    tokens_per_step: int | None = None,
    samples_per_step: int | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    import_functions: bool = False,
) -> LRScheduler:
    """Build a scheduler from its ``config``, as from a YAML or a JSON file.

    Parameters
    ----------
    config : mapping
        The name of a scheduler class under ``'class'``, or ``'type'``, and the arguments of its
        constructor. An argument that is itself such a mapping becomes a scheduler. A
        ``ConfigDict`` of ml_collections or a ``DictConfig`` of OmegaConf is a mapping, too.
    epochs, steps_per_epoch, tokens_per_step, samples_per_step : int, optional
        How many epochs the run has, and how many optimizer steps an epoch, tokens or samples a
        step. Lengths such as ``'2.4ep'``, ``'300st'``, ``'0.1run'``, ``'1000000tok'`` and
        ``'2560sp'`` become numbers of steps where one of the last three is given, for a scheduler
        that is stepped once an update, and else numbers of epochs. The parts of a
        :class:`PerUpdate`, which has its own ``steps_per_epoch`` or gets this one, are in epochs.
    functions : mapping from str to callable, optional
        The functions that the config may name, by the names that it has for them.
    import_functions : bool
        Also import a function that the config names as ``'module:function'``, which runs the code
        of that module: for configs that you trust as you trust code.

    Returns
    -------
    LRScheduler
        A new scheduler, at the ``last_epoch`` of the config: 0 where it says nothing.

    Raises
    ------
    TypeError, ValueError
        If the class, an argument, a unit or a function is unknown, if the class refuses an
        argument, or if the config is nested too deep or too large. For a part of a composition the
        message begins with its place, as in ``schedulers[1]: ...``.

    Examples
    --------
    >>> import brainsched
    >>> plan = {"class": "WSD", "warmup_steps": "0.1run", "stay_steps": "7ep", "decay_steps": "2ep"}
    >>> scheduler = brainsched.from_config(plan, epochs=10, steps_per_epoch=25)
    >>> scheduler.warmup_steps, scheduler.stay_steps, scheduler.decay_steps
    (25, 175, 50)
    """
    if not hasattr(config, "keys"):
        raise TypeError(f"config must be a mapping, got {type(config).__name__}")
    lengths = _Lengths(epochs, steps_per_epoch, tokens_per_step, samples_per_step)
    for name, number in zip(lengths._fields, lengths[:4], strict=False):
        if number is not None and checks.integer(name, number) < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    reader = _Reader()
    whole, own = reader.read(config, 0), reader.steps_per_epoch
    if steps_per_epoch is not None and own - {steps_per_epoch}:
        raise ValueError(f"steps_per_epoch is {sorted(own)} in the config, got {steps_per_epoch}")
    if len(own) == 1:
        lengths = lengths._replace(steps_per_epoch=min(own))
    lengths = lengths._replace(in_steps=bool(own) or any(lengths[1:4]))
    return _Builder(functions or {}, import_functions, lengths).scheduler("", whole)


class _Reader:
    """Copies a config into dicts and lists, as long as it is of a bounded size.

    It notes each ``steps_per_epoch`` of a part that says by it that it is stepped once an update.
    """

    def __init__(self) -> None:
        self.mappings = self.values = 0
        self.steps_per_epoch: set[int] = set()

    def read(self, value: Any, depth: int) -> Any:
        self.values += 1
        if depth > _DEEPEST:
            raise ValueError(f"config is nested more than {_DEEPEST} deep, or contains itself")
        if self.mappings > _MOST_MAPPINGS or self.values > _MOST_VALUES:
            raise ValueError(
                f"config has more than {_MOST_MAPPINGS:,} mappings or {_MOST_VALUES:,} values, "
                f"counting a shared one wherever it is used"
            )
        if isinstance(value, str | bytes | int | float):
            return value
        # ConfigDict of ml_collections is no Mapping.
        if hasattr(value, "keys") and hasattr(value, "__getitem__"):
            self.mappings += 1
            entries = {key: self.read(value[key], depth + 1) for key in value.keys()}  # noqa: SIM118
            cls = configuring.classes().get(str(entries.get(_class_key(entries))))
            number = entries.get("steps_per_epoch")
            if cls and cls._parts_are_in_epochs and isinstance(number, numbers.Integral):
                self.steps_per_epoch.add(int(number))
            return entries
        if isinstance(value, Sequence):
            return [self.read(entry, depth + 1) for entry in value]
        return value


class _Lengths(NamedTuple):
    """What lengths with a unit, such as ``'5ep'``, are resolved with.

    ``in_steps`` says whether they become steps, for a scheduler that is stepped once an update, or
    epochs.
    """

    epochs: int | None
    steps_per_epoch: int | None
    tokens_per_step: int | None
    samples_per_step: int | None
    in_steps: bool = False

    def resolved(self, place: str, text: str, whole: bool) -> int | float | None:
        """Return the length that the text at ``place`` of a config says; None if it says none.

        A length in epochs may lie between steps, unless ``whole``.
        """
        match = _LENGTH.fullmatch(text)
        if match is None:
            return None
        length, unit = Fraction(match[1]), match[2]
        if unit not in UNITS:
            raise ValueError(
                f"{place} is {text!r}, and {unit!r} is not a unit: use one of {', '.join(UNITS)}"
            )
        if unit in ("ep", "run"):
            if unit == "run":
                length *= self._known("epochs", place, text)
            if self.in_steps:
                length *= self._known("steps_per_epoch", place, text)
                if whole or unit == "run":
                    length = Fraction(round(length))
        else:
            if unit != "st":
                length /= self._known(_EACH_STEP[unit], place, text)
            length = Fraction(round(length))
            if not self.in_steps:
                length /= self._known("steps_per_epoch", place, text)
        return int(length) if length.denominator == 1 else float(length)

    def _known(self, name: str, place: str, text: str) -> int:
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"{place} is {text!r}, which needs from_config(config, {name}=...)")
        return int(value)


class _Builder(NamedTuple):
    """What a config is built with."""

    functions: Mapping[str, Callable[..., Any]]
    import_functions: bool
    lengths: _Lengths

    def scheduler(self, place: str, config: Mapping[str, Any]) -> LRScheduler:
        """Return the scheduler of the config at ``place`` in the whole: '' is the whole."""
        arguments = dict(config)
        key = _class_key(arguments)
        name = arguments.pop(key, None)
        with _naming(place):
            cls = configuring.class_of(name) if isinstance(name, str) else None
            if cls is None:
                known = ", ".join(sorted(configuring.classes()))
                raise ValueError(
                    f"config[{key!r}] must be one of {known}; got {reprlib.repr(name)}"
                )
        of_parts = self
        if cls._parts_are_in_epochs:
            if self.lengths.steps_per_epoch is not None:
                arguments.setdefault("steps_per_epoch", self.lengths.steps_per_epoch)
            of_parts = self._replace(lengths=self.lengths._replace(in_steps=False))
        prefix = f"{place}." if place else ""
        built = {}
        for argument, value in arguments.items():
            kind = _kind_of_length(cls, argument)
            builder = of_parts if kind is None else self
            built[argument] = builder.argument(f"{prefix}{argument}", value, kind)
        with _naming(place):
            return cls(**built)

    def argument(self, place: str, value: Any, kind: type | None) -> Any:
        """Return an argument as the constructor takes it; it may be a length, or a list of them."""
        if isinstance(value, dict):
            if isinstance(value.get(_class_key(value)), str):  # else a group may be called so
                return self.scheduler(place, value)
            return {
                key: self.argument(f"{place}[{key!r}]", entry, kind) for key, entry in value.items()
            }
        if isinstance(value, list):
            return [self.argument(f"{place}[{i}]", entry, kind) for i, entry in enumerate(value)]
        if not isinstance(value, str):
            return value
        length = None if kind is None else self.lengths.resolved(place, value, kind is int)
        return self.text(place, value) if length is None else length

    def text(self, place: str, text: str) -> Any:
        """Return a string, or the function that it names."""
        if text in self.functions or ":" not in text:
            return self.functions.get(text, text)
        cure = f"call from_config(config, functions={{{text!r}: function}})"
        if not self.import_functions:
            raise ValueError(
                f"{place} names the function {text!r}, and to import it is to run its module: "
                f"{cure}, or if you trust the config from_config(config, import_functions=True)"
            )
        try:
            return pkgutil.resolve_name(text)
        except (ImportError, AttributeError, ValueError) as error:
            message = f"{place} names the function {text!r}, which cannot be imported: {cure}"
            raise ValueError(message) from error


@contextlib.contextmanager
def _naming(place: str) -> Iterator[None]:
    """Begin the message of an error with the place of the part that it is of."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not place:
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{place}: {error}") from error


def _kind_of_length(cls: Any, argument: str) -> type | None:
    """Return int if an argument may be a length, float if it may lie between steps, else None.

    By its annotation, or else by its default. A rate, with its "floating", is none, nor is a text.
    """
    # The signature of the class is without types, for help().
    parameter = inspect.signature(cls.__init__).parameters.get(argument)
    if parameter is None:  # the class refuses it
        return None
    names = set(re.findall(r"\w+", inspect.formatannotation(parameter.annotation)))
    if parameter.annotation is parameter.empty:
        names = {type(parameter.default).__name__} & {"float", "str"} or {"int"}
    if "floating" in names or argument in _NO_LENGTHS or not names & {"int", "float"}:
        return None
    return float if "float" in names else int


def _class_key(config: Mapping[str, Any]) -> str:
    """Return under which key the name of the class is."""
    return "type" if not isinstance(config.get("class"), str) and "type" in config else "class"
