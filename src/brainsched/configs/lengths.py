"""Lengths with a unit, such as ``'5ep'``, instead of a plain number."""

import re
from fractions import Fraction
from typing import NamedTuple

UNITS = ("ep", "st", "run", "tok", "sp")
_EACH_STEP = {"tok": "tokens_per_step", "sp": "samples_per_step"}
_LENGTH = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)([A-Za-z]+|%)")


class Lengths(NamedTuple):
    """What lengths are resolved with: the arguments of :func:`from_config`.

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

        It is an int if ``whole`` says so; else a length in epochs may lie between steps.
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
        if length.denominator == 1:
            return int(length)
        if whole:
            raise ValueError(
                f"{place} is {text!r}, or {float(length):.6g} epochs, but must be a whole number: "
                f"change it, or count updates, with from_config(config, steps_per_epoch=...)"
            )
        return float(length)

    def _known(self, name: str, place: str, text: str) -> int:
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"{place} is {text!r}, which needs from_config(config, {name}=...)")
        return int(value)
