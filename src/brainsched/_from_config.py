"""The way from a config to a scheduler, whatever read the config from its file."""

import contextlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from brainsched import _check, _config
from brainsched._arguments import parameters

if TYPE_CHECKING:
    from brainsched._base import LRScheduler


def from_config(
    config: Mapping[str, Any],
    *,
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
        If the class, an argument or a function is unknown, or an argument is refused by the
        class. For a part of a composition the message begins with its place, as in
        ``schedulers[1]: ...``.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.from_config(
    ...     {"class": "PiecewiseConstantSchedule", "base_lr": 0.5,
    ...      "boundaries": [10], "values": [1.0, 0.5]}
    ... )
    >>> scheduler.lr_at(10).item()
    0.25
    >>> halved = {"type": "LambdaLR", "base_lr": 0.5, "lr_lambda": "half"}
    >>> brainsched.from_config(halved, functions={"half": lambda epoch: 0.5}).lr_at(0).item()
    0.25
    """
    if not _is_mapping(config):
        raise TypeError(f"config must be a mapping, got {type(config).__name__}")
    return _Builder(_callables(functions), import_functions).scheduler("", _as_dict(config))


class _Builder(NamedTuple):
    """What a config is built with."""

    functions: Mapping[str, Callable[..., Any]]
    import_functions: bool

    def scheduler(self, place: str, config: Mapping[str, Any]) -> "LRScheduler":
        """Return the scheduler of the config at ``place`` in the whole: '' is the whole."""
        arguments = dict(config)
        key = _class_key(arguments) or "class"
        name = arguments.pop(key, None)
        with _naming(place):
            classes = _config.classes()
            if not isinstance(name, str) or name not in classes:
                known = ", ".join(sorted(classes))
                raise ValueError(f"config[{key!r}] must be one of {known}; got {name!r}")
            cls = classes[name]
            accepted = parameters(cls)
            for argument in arguments:
                if argument not in accepted:
                    raise ValueError(
                        f"{name} has no argument {argument!r}; it has {', '.join(accepted)}"
                    )
        prefix = f"{place}." if place else ""
        built = {
            argument: self.argument(f"{prefix}{argument}", value)
            for argument, value in arguments.items()
        }
        with _naming(place):
            return cls(**built)

    def argument(self, place: str, value: Any) -> Any:
        """Return an argument as the constructor takes it."""
        if _is_mapping(value):
            config = _as_dict(value)
            if _class_key(config) is not None:
                return self.scheduler(place, config)
            return {key: self.argument(f"{place}[{key!r}]", v) for key, v in config.items()}
        if isinstance(value, str):
            return self.text(place, value)
        if isinstance(value, Sequence):
            entries = [self.argument(f"{place}[{i}]", entry) for i, entry in enumerate(value)]
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


def _class_key(config: Mapping[str, Any]) -> str | None:
    """Return under which key the class is, if it is a scheduler's config."""
    return next((key for key in ("class", "type") if key in config), None)


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
            f"functions must be a mapping from names to functions, got {_check.shown(functions)}"
        )
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(f"functions[{name!r}] must be a function, got {_check.shown(function)}")
    return functions
