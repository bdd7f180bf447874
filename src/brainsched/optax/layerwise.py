"""A rate for each layer of a network, lower the further it is from the output."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from brainsched import checks


class LayerwiseDecay(NamedTuple):
    """The rate of each layer by its name, and the name of each pattern's layer or layers."""

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
        The layers from the input to the output, each as a pattern of its parameters' paths, or
        as several. Repeat a pattern for layers that are stacked along an array's first axis, as
        ``nnx.scan`` stacks them.

    Returns
    -------
    LayerwiseDecay
        ``base_lr`` for a scheduler, ``groups`` for :func:`scale_by_scheduler`. A layer's name is
        its first pattern without a last ``/*``, and with ``/0``, ``/1``, ... if it is stacked.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or two layers would have the same name.

    Examples
    --------
    >>> import brainsched
    >>> rates, groups = brainsched.layerwise_decay(1.0, 0.5, ["blocks/*", "blocks/*", "head/*"])
    >>> rates
    {'blocks/0': 0.25, 'blocks/1': 0.5, 'head': 1.0}
    >>> groups
    {'blocks/*': ['blocks/0', 'blocks/1'], 'head/*': 'head'}

    References
    ----------
    Clark et al., "ELECTRA", 2020, https://arxiv.org/abs/2003.10555.
    """
    rate = checks.number("base_lr", base_lr)
    decay = checks.within("decay", decay, "(0, 1]")
    listed = [
        [layer] if isinstance(layer, str) else checks.sequence(f"layers[{i}]", layer, "patterns")
        for i, layer in enumerate(checks.sequence("layers", layers, "patterns of paths"))
    ]
    times = Counter(layer[0] for layer in listed)
    seen: Counter[str] = Counter()
    rates: dict[str, float] = {}
    groups: dict[str, Any] = {}
    for i, (first, *others) in enumerate(listed):
        stacked = times[first] > 1
        name = first.removesuffix("/*") + (f"/{seen[first]}" if stacked else "")
        seen[first] += 1
        if name in rates:
            raise ValueError(f"layers[{i}] is called {name!r}, as a layer before it is")
        rates[name] = rate * decay ** (len(listed) - 1 - i)
        for pattern in (first, *others):
            if pattern in groups and not stacked:
                raise ValueError(f"layers[{i}] repeats the pattern {pattern!r} of another layer")
            groups[pattern] = [*groups.get(pattern, []), name] if stacked else name
    return LayerwiseDecay(rates, groups)
