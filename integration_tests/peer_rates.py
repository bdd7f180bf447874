"""Ask PyTorch, transformers, timm and Keras for the rates of docs/schedule-equivalents.md.

    pip install torch transformers timm keras
    python integration_tests/peer_rates.py

It evaluates each call in the guide's tables with the library's own code, and writes the rates and
the versions to peer_rates.json, which the tests compare ours with. They need none of the four.
"""

import importlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

GUIDE = Path(__file__).parents[1] / "docs" / "schedule-equivalents.md"
RATES = Path(__file__).with_name("peer_rates.json")
RATE = 0.1  # of the optimizer that the calls are given
STEPS = 30
# What a plateau is shown after each step: it improves, and then it stands still twice.
METRICS = [3.0, 2.5, 2.0, 2.0, 2.1, 2.0, 2.0, 1.5, 1.4, 1.3] + [1.3] * STEPS
# Where the calls of each table find their names; those of optax and braintools are tested live.
MODULES = {
    "PyTorch": ["torch.optim.lr_scheduler", "torch.optim.swa_utils"],
    "transformers": ["transformers.optimization"],
    "timm": ["timm.scheduler", "timm.scheduler.wsd_lr"],
    "Keras": ["keras.optimizers.schedules"],
}


class Row(NamedTuple):
    """A row of a table: a call of theirs, ours that takes its place, and the steps compared.

    The table of boundaries also has ``stated``, the rates of theirs at the last three of them.
    """

    peer: str
    theirs: str
    ours: str
    first: int = 0
    last: int = STEPS
    stated: str = ""


def rows() -> list[Row]:
    """Return the rows of all tables of the guide, that of the boundaries included."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", GUIDE.read_text(), re.MULTILINE):
        head, _, *body = [
            [cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()
        ]
        for cells in body:
            if head[0] == "coming from":
                peer, theirs, stated, ours = cells
                row = Row(peer, theirs, ours, last=4, stated=stated)
            else:
                limits = dict(re.findall(r"^(from|to) (\d+): ", cells[2]))
                first, last = int(limits.get("from", 0)), int(limits.get("to", STEPS))
                row = Row(head[0].split()[0], cells[0], cells[1], first, last)
            # A cell may have several calls of theirs, which come to the same.
            for theirs in re.findall(r"`(.+?)`", row.theirs):
                found.append(row._replace(theirs=theirs, ours=row.ours.strip("`")))
    return found


def rates_of(call: str, last: int, names: dict[str, Any]) -> list[float]:
    """Return the rates that a call of PyTorch, transformers or timm trains at."""
    torch = importlib.import_module("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE, momentum=0.9)
    scheduler = eval(call, {**names, "optimizer": optimizer})
    rates = []
    for step in range(last + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step == last:
            break
        if type(scheduler).__module__.startswith("timm."):
            scheduler.step(step + 1, METRICS[step])
        elif "plateau" in call.lower():
            scheduler.step(METRICS[step])
        else:
            scheduler.step()
    return rates


def main() -> None:
    """Write the rates of all rows."""
    os.environ["KERAS_BACKEND"] = "torch"
    # timm's plateau is deprecated, and PyTorch's SequentialLR warns of what it does itself.
    warnings.simplefilter("ignore")
    written: dict[str, dict[str, list[float]]] = {}
    versions = {}
    for peer, modules in MODULES.items():
        package = modules[0].partition(".")[0]
        versions[peer] = importlib.import_module(package).__version__.partition("+")[0]
        names: dict[str, Any] = {}
        for module in modules:
            names |= vars(importlib.import_module(module))
        written[peer] = {}
        for row in rows():
            if row.peer != peer:
                continue
            if peer == "Keras":
                schedule = eval(row.theirs, names)
                rates = [float(schedule(step)) for step in range(row.last + 1)]
            else:
                rates = rates_of(row.theirs, row.last, names)
            written[peer][row.theirs] = rates
    parts = [
        f"{json.dumps(peer)}: {{\n"
        + ",\n".join(f"  {json.dumps(call)}: {json.dumps(rates)}" for call, rates in calls.items())
        + "\n}"
        for peer, calls in written.items()
    ]
    text = ",\n".join([f'"versions": {json.dumps(versions)}', *parts])
    RATES.write_text("{\n" + text + "\n}\n")
    print(f"wrote {sum(map(len, written.values()))} rows of {versions} to {RATES}")


if __name__ == "__main__":
    main()
