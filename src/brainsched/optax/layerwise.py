"""A rate for each layer of a network, lower the further it is from the output."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from brainsched import checks
from brainsched.schedules import schedule_checks


class LayerwiseDecay(NamedTuple):
    """What :func:`layerwise_decay` returns.

    Attributes
    ----------
    base_lr : dict from str to float
        The base rate of each layer, by its name: the ``base_lr`` of a scheduler.
    groups : dict from str to str or list of str
        The name of the layer, or of the stacked layers, that a pattern is of: the ``groups`` of
        :func:`scale_by_scheduler`.
    """

    base_lr: dict[str, float]
    groups: dict[str, str | list[str]]


def layerwise_decay(
    base_lr: float, decay: float, layers: Sequence[str | Sequence[str]]
) -> LayerwiseDecay:
    r"""Return the base rates and the groups of a network whose lower layers learn more slowly.

    .. math::

        \eta_i = \eta_\text{base} \, \text{decay}^{n - 1 - i}

    for layer :math:`i` of :math:`n`, so that the last one has the full rate.

    Parameters
    ----------
    base_lr : float
        The rate of the last layer.
    decay : float
        The factor from a layer to the one below it, in (0, 1].
    layers : sequence of str, or of sequences of str
        The layers from the input to the output, each as the pattern of its parameters' paths, or
        as several of them. A pattern that is given many times is that of many layers in one array,
        along its first axis, as ``nnx.scan`` stacks them.

    Returns
    -------
    LayerwiseDecay
        ``base_lr`` and ``groups``. A layer's name is its first pattern without ``/*`` at the end,
        and with ``/0``, ``/1``, ... where layers are stacked.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or two layers would have the same name.

    Examples
    --------
    >>> import brainsched
    >>> rates, groups = brainsched.layerwise_decay(
    ...     1.0, 0.5, ["embedding/*", "blocks/0/*", "blocks/1/*", "head/*"])
    >>> rates
    {'embedding': 0.125, 'blocks/0': 0.25, 'blocks/1': 0.5, 'head': 1.0}
    >>> groups["blocks/0/*"]
    'blocks/0'
    >>> brainsched.layerwise_decay(1.0, 0.5, ["blocks/*", "blocks/*", "head/*"]).groups
    {'blocks/*': ['blocks/0', 'blocks/1'], 'head/*': 'head'}

    References
    ----------
    Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018,
    https://arxiv.org/abs/1801.06146; as Clark et al., "ELECTRA", 2020, use it,
    https://arxiv.org/abs/2003.10555.
    """
    rate = checks.number("base_lr", base_lr)
    decay = schedule_checks.within("decay", decay, "(0, 1]")
    listed = [
        _patterns(f"layers[{i}]", layer)
        for i, layer in enumerate(checks.sequence("layers", layers, "patterns of paths"))
    ]
    if not listed:
        raise ValueError("layers must have at least one layer, got an empty sequence")
    times = Counter(layer[0] for layer in listed)
    seen: Counter[str] = Counter()
    rates: dict[str, float] = {}
    groups: dict[str, Any] = {}
    for i, layer in enumerate(listed):
        name = layer[0].removesuffix("/*")
        stacked = times[layer[0]] > 1
        if stacked:
            name = f"{name}/{seen[layer[0]]}"
        if name in rates:
            raise ValueError(f"layers[{i}] is called {name!r}, as a layer before it is")
        rates[name] = rate * decay ** (len(listed) - 1 - i)
        for pattern in layer:
            if pattern in groups and not stacked:
                raise ValueError(f"layers[{i}] has the pattern {pattern!r}, which was given before")
            groups[pattern] = [*groups.get(pattern, []), name] if stacked else name
        seen[layer[0]] += 1
    return LayerwiseDecay(rates, groups)


def _patterns(what: str, layer: Any) -> list[str]:
    patterns = [layer] if isinstance(layer, str) else checks.sequence(what, layer, "patterns")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{what} must be a pattern of paths, got {checks.shown(pattern)}")
    if not patterns:
        raise ValueError(f"{what} must have at least one pattern, got an empty sequence")
    return patterns
