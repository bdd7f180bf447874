"""The way from a config to a scheduler, whatever read the config from its file."""

import contextlib
import inspect
import numbers
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from brainsched import checks
from brainsched.configs.lengths import Lengths, positive
from brainsched.core import config as configuring
from brainsched.core.arguments import parameters

if TYPE_CHECKING:
    from brainsched.core.scheduler import LRScheduler

# Integers, but not in the unit in which the scheduler is stepped.
_NO_LENGTHS = ("T_mult", "cycles", "epochs", "steps_per_epoch")


def from_config(
    config: Mapping[str, Any],
    *,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    import_functions: bool = False,
) -> "LRScheduler":
    """Build a scheduler from its ``config``, as from a YAML or a JSON file.

    Parameters
    ----------
    config : mapping
        The name of a scheduler class under ``'class'``, or ``'type'``, and the arguments of its
        constructor. An argument that is itself such a mapping becomes a scheduler. A
        ``ConfigDict`` of ml_collections and a ``DictConfig`` of OmegaConf are mappings, too.
    epochs : int, optional
        How many epochs the run has, for lengths such as ``'0.1run'``.
    steps_per_epoch : int, optional
        How many optimizer steps make an epoch. Where it is given, lengths such as ``'5ep'``,
        ``'300st'`` and ``'0.1run'`` become numbers of steps, rounded to the nearest, for a
        scheduler that is stepped once an update. Else they become numbers of epochs, which must
        be whole. The parts of a :class:`PerUpdate`, which brings its own ``steps_per_epoch`` or
        gets this one, are in epochs.
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
        If the class, an argument or a function is unknown, if an argument is refused by the
        class, or if a length cannot be resolved. For a part of a composition the message begins
        with its place, as in ``schedulers[1]: ...``.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.from_config(
    ...     {"class": "PiecewiseConstantSchedule", "base_lr": 0.5,
    ...      "boundaries": [10], "values": [1.0, 0.5]}
    ... )
    >>> scheduler.lr_at(10).item()
    0.25
    >>> plan = {"class": "WSD", "warmup_steps": "0.1run", "stay_steps": "7ep", "decay_steps": "2ep"}
    >>> scheduler = brainsched.from_config(plan, epochs=10, steps_per_epoch=25)
    >>> scheduler.warmup_steps, scheduler.stay_steps, scheduler.decay_steps
    (25, 175, 50)
    >>> halved = {"type": "LambdaLR", "base_lr": 1.0, "lr_lambda": "half"}
    >>> brainsched.from_config(halved, functions={"half": lambda epoch: 0.5}).lr_at(0).item()
    0.5
    """
    if not _is_mapping(config):
        raise TypeError(f"config must be a mapping, got {type(config).__name__}")
    whole = _as_dict(config)
    steps_per_epoch = positive("steps_per_epoch", steps_per_epoch)
    lengths = _lengths(whole, positive("epochs", epochs), steps_per_epoch)
    return _Builder(_callables(functions), import_functions, lengths).scheduler("", whole)


class _Builder(NamedTuple):
    """What a config is built with."""

    functions: Mapping[str, Callable[..., Any]]
    import_functions: bool
    lengths: Lengths

    def scheduler(self, place: str, config: Mapping[str, Any]) -> "LRScheduler":
        """Return the scheduler of the config at ``place`` in the whole: '' is the whole."""
        arguments = dict(config)
        key = _class_key(arguments) or "class"
        name = arguments.pop(key, None)
        with _naming(place):
            classes = configuring.classes()
            if not isinstance(name, str) or name not in classes:
                known = ", ".join(sorted(classes))
                raise ValueError(f"config[{key!r}] must be one of {known}; got {name!r}")
            cls = classes[name]
            for argument in arguments:
                if argument not in parameters(cls):
                    raise ValueError(
                        f"{cls.__name__} has no argument {argument!r}; it has "
                        f"{', '.join(parameters(cls))}"
                    )
        of_parts = self
        if cls._parts_are_in_epochs:
            if self.lengths.steps_per_epoch is not None:
                arguments.setdefault("steps_per_epoch", self.lengths.steps_per_epoch)
            of_parts = self._replace(lengths=self.lengths._replace(in_steps=False))
        prefix = f"{place}." if place else ""
        built = {}
        for argument, value in arguments.items():
            is_length = _is_length(cls, argument)
            builder = self if is_length else of_parts
            built[argument] = builder.argument(f"{prefix}{argument}", value, is_length)
        with _naming(place):
            return cls(**built)

    def argument(self, place: str, value: Any, is_length: bool) -> Any:
        """Return an argument as the constructor takes it; it may be a length, or a list of them."""
        if _is_mapping(value):
            config = _as_dict(value)
            if _class_key(config) is not None:
                return self.scheduler(place, config)
            return {
                key: self.argument(f"{place}[{key!r}]", entry, is_length)
                for key, entry in config.items()
            }
        if isinstance(value, str):
            length = self.lengths.resolved(place, value) if is_length else None
            return self.text(place, value) if length is None else length
        if isinstance(value, Sequence):
            entries = [
                self.argument(f"{place}[{i}]", entry, is_length) for i, entry in enumerate(value)
            ]
            return tuple(entries) if isinstance(value, tuple) else entries
        return value

    def text(self, place: str, text: str) -> Any:
        """Return a string, or the function that it names."""
        if text in self.functions:
            return self.functions[text]
        if ":" not in text:
            return text
        if not self.import_functions:
            raise ValueError(
                f"{place} names the function {text!r}, which from_config does not import by "
                f"itself, since that would run a module's code: give it with "
                f"from_config(config, functions={{{text!r}: function}}), or, if you trust the "
                f"config as you trust code, from_config(config, import_functions=True)"
            )
        try:
            return pkgutil.resolve_name(text)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{place} names the function {text!r}, which cannot be imported: only one that is "
                f"defined at the top of a module can; give others with "
                f"from_config(config, functions={{{text!r}: function}})"
            ) from error


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


def _is_length(cls: Any, argument: str) -> bool:
    """Whether an argument counts in the unit in which the scheduler is stepped.

    An integer does, or integers, by the annotation of the argument; a rate or a factor does not.
    """
    # That of the class is without types, for help().
    annotation = inspect.signature(cls.__init__).parameters[argument].annotation
    is_integer = annotation is inspect.Parameter.empty or re.search(
        r"\bint\b", inspect.formatannotation(annotation)
    )
    return bool(is_integer) and argument not in _NO_LENGTHS


def _lengths(config: Any, epochs: int | None, steps_per_epoch: int | None) -> Lengths:
    """Return what the lengths of a config are resolved with.

    They are in steps where the scheduler is stepped once an update: as the caller says, by giving
    ``steps_per_epoch``, or as a :class:`PerUpdate` in the config does.
    """
    found = set(_steps_per_epoch(config))
    for number in found:
        if steps_per_epoch not in (None, number):
            raise ValueError(
                f"steps_per_epoch must be that of the PerUpdate in the config, {number}, "
                f"got {steps_per_epoch}"
            )
    if steps_per_epoch is None and len(found) == 1:
        (steps_per_epoch,) = found
    return Lengths(epochs, steps_per_epoch, steps_per_epoch is not None or bool(found))


def _steps_per_epoch(config: Any) -> Iterator[int]:
    """Yield ``steps_per_epoch`` of each part of a config that says that it is stepped per update.

    As long as it is a number: what it must be is for the class to say.
    """
    if _is_mapping(config):
        entries = _as_dict(config)
        cls = configuring.classes().get(str(entries.get(_class_key(entries) or "class")))
        if cls is not None and cls._parts_are_in_epochs:
            number = entries.get("steps_per_epoch")
            if isinstance(number, numbers.Integral):
                yield int(number)
        for value in entries.values():
            yield from _steps_per_epoch(value)
    elif isinstance(config, Sequence) and not isinstance(config, str | bytes):
        for value in config:
            yield from _steps_per_epoch(value)


def _class_key(config: Mapping[str, Any]) -> str | None:
    """Return under which key the class is, if it is a scheduler's config."""
    # A group of base rates may be called so, too; but its rate is no name.
    return next((key for key in ("class", "type") if isinstance(config.get(key), str)), None)


def _is_mapping(value: Any) -> bool:
    """Whether it is a mapping, or like one: ConfigDict of ml_collections is no ``Mapping``."""
    return hasattr(value, "keys") and hasattr(value, "__getitem__")


def _as_dict(value: Any) -> dict[str, Any]:
    """Return a mapping as a dict of its entries, which resolve what they refer to."""
    return {key: value[key] for key in value.keys()}  # noqa: SIM118  (all that it may have)


def _callables(functions: Any) -> Mapping[str, Callable[..., Any]]:
    """Return ``functions``, which must be a mapping of functions, or None."""
    if functions is None:
        return {}
    if not isinstance(functions, Mapping):
        raise TypeError(
            f"functions must be a mapping from names to functions, got {checks.shown(functions)}"
        )
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(f"functions[{name!r}] must be a function, got {checks.shown(function)}")
    return functions
