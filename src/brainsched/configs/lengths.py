"""Lengths with a unit: ``'5ep'``, ``'300st'`` and ``'0.1run'`` in the place of a plain integer."""

import re
from fractions import Fraction
from typing import Any, NamedTuple

from brainsched import checks

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)(ep|st|run)")


class Lengths(NamedTuple):
    """What lengths are resolved with, and to what.

    Attributes
    ----------
    epochs : int or None
        How many epochs the whole run has.
    steps_per_epoch : int or None
        How many optimizer steps, that is updates, make an epoch.
    in_steps : bool
        Whether lengths become steps, for a scheduler that is stepped once an update, or epochs.
    """

    epochs: int | None
    steps_per_epoch: int | None
    in_steps: bool

    def resolved(self, place: str, text: str) -> int | None:
        """Return the length that the text at ``place`` of a config says; None if it says none.

        Raises
        ------
        ValueError
            If something is missing that it takes, or it is no whole number of epochs.
        """
        match = _LENGTH.fullmatch(text)
        if match is None:
            return None
        number, unit = Fraction(match[1]), match[2]
        if unit == "st":
            if self.in_steps:
                return _nearest(number)
            epochs = number / self._known("steps_per_epoch", place, text)
        else:
            epochs = number if unit == "ep" else number * self._known("epochs", place, text)
            if self.in_steps:
                return _nearest(epochs * self._known("steps_per_epoch", place, text))
        if epochs.denominator != 1:
            raise ValueError(
                f"{place} is {text!r}, or {float(epochs):.6g} epochs, which is not a whole number: "
                f"name another length, or step the scheduler once an update, with lengths in "
                f"updates, as from_config(config, steps_per_epoch=...) makes it"
            )
        return int(epochs)

    def _known(self, name: str, place: str, text: str) -> int:
        value = getattr(self, name)
        if value is None:
            raise ValueError(
                f"{place} is {text!r}, which takes {name} to resolve: give from_config(config, "
                f"{name}=...)"
            )
        return int(value)


def positive(name: str, value: Any) -> int | None:
    """Return ``value``, which must be a positive integer or None."""
    if value is None:
        return None
    result = checks.integer(name, value)
    if result < 1:
        raise ValueError(f"{name} must be at least 1, got {result}")
    return result


def _nearest(steps: Fraction) -> int:
    """Round to a whole number of steps, and a half up: an error of half an update at most."""
    return int(steps + Fraction(1, 2))
