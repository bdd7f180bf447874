"""A page for every public name, with a picture and a table of rates for each schedule.

The names come from ``brainsched.__all__``, so that a new schedule gets its page by itself. The
call that is drawn and tabulated is the one in ``examples/gallery.py``. The pages are written to
``docs/api`` when the site is built, and not stored.
"""

import ast
import importlib.util
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from sphinx.application import Sphinx

import brainsched
import brainsched.trainer

matplotlib.use("agg")
matplotlib.rcParams["svg.hashsalt"] = "brainsched"  # the same picture each time
matplotlib.rcParams["svg.fonttype"] = "none"

GALLERY = Path(__file__).parents[2] / "examples" / "gallery.py"
EPOCHS = 100
SHOWN = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
# What a schedule's page leaves to that of the base
OF_THE_BASE = "formula, stage_boundaries"
# The members of a class other than a schedule: its own, and those inherited from ours
MEMBERS = """\
   :members:
   :special-members: __call__
   :inherited-members: Node, PrettyObject, PrettyRepr, LRScheduler, object
"""
BESIDES = {
    "scale_by_scheduler": "\n\n.. autoclass:: brainsched.optax.scale.ScaleBySchedulerState\n"
}


def load_gallery() -> Any:
    """Import the example that has one call of every schedule."""
    spec = importlib.util.spec_from_file_location("gallery", GALLERY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def calls(gallery: Any) -> dict[str, tuple[Any, str]]:
    """Return each schedule of the gallery and the source of its call, by the name of its class."""
    source = GALLERY.read_text()
    (listed,) = (
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SCHEDULES"
    )
    assert isinstance(listed, ast.List)
    texts = [ast.get_source_segment(source, element) or "" for element in listed.elts]
    return {
        type(schedule).__name__: (schedule, text.replace("bs.", "brainsched."))
        for schedule, text in zip(gallery.SCHEDULES, texts, strict=True)
    }


def page(title: str, body: str, module: str = "brainsched") -> str:
    """Return a page's source."""
    return f"{title}\n{'=' * len(title)}\n\n.. currentmodule:: {module}\n\n{body}\n"


def class_page(cls: type, name: str, example: str) -> str:
    """Return the page of a schedule."""
    body = (
        f"{example}\n.. autoclass:: {name}\n   :members:\n   :exclude-members: {OF_THE_BASE}\n\n"
        f"What every schedule has, ``lr_at``, ``step``, ``plot``, ``as_optax`` and more, is on the "
        f"page of :class:`LRScheduler`.\n"
    )
    return page(name, body)


def example_of(name: str, call: str, rows: str, remark: str) -> str:
    """Return the picture and the table of one call."""
    return (
        f".. code-block:: python\n   :class: call\n\n   {call}\n\n"
        f".. image:: {name}.svg\n   :alt: {name}: {remark}\n\n{rows}\n"
    )


def table(columns: "dict[str, list[str]]") -> str:
    """Return a table that lies on its side, with a title before each row of numbers."""
    rows = "".join(
        f"   * - {title}\n" + "".join(f"     - {number}\n" for number in numbers)
        for title, numbers in columns.items()
    )
    return f".. list-table::\n   :stub-columns: 1\n\n{rows}"


def save(ax: Any, path: Path) -> None:
    """Write a picture, the same bytes each time."""
    figure = ax.get_figure()
    figure.set_size_inches(6.4, 3.2)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def schedule_example(name: str, schedule: Any, call: str, folder: Path) -> str:
    """Draw and tabulate a schedule that is a function of the epoch."""
    ax = schedule.plot(EPOCHS)
    ax.set(yscale="linear", ylim=(0, 1.05))  # one scale for all, to compare
    if hasattr(schedule, "at"):  # it leaves another schedule there
        epochs = np.arange(EPOCHS)
        old = schedule.scheduler.lr_at(epochs)[:, 0]
        ax.step(epochs, old, "--", where="post", color="0.6", zorder=1, label="the old schedule")
        ax.lines[0].set_label(name)
        ax.legend()
    save(ax, folder / f"{name}.svg")
    rates = np.asarray(schedule.lr_at(SHOWN))[:, 0]
    rows = table({"epoch": [*map(str, SHOWN)], "rate": [f"{rate:.4g}" for rate in rates]})
    return example_of(name, call, rows, f"the rate over {EPOCHS} epochs")


def plateau_example(gallery: Any, folder: Path) -> str:
    """Draw and tabulate the one schedule that depends on a metric."""
    ax = plt.figure(layout="constrained").add_subplot()
    gallery.draw_plateau(ax)
    rates = ax.lines[0].get_ydata()
    losses = 3 * np.asarray(ax.lines[1].get_ydata())  # which it draws at a third
    ax.set(xlabel="epoch", ylabel="learning rate")
    save(ax, folder / "ReduceLROnPlateau.svg")
    (call,) = (
        ast.unparse(node)
        for node in ast.walk(ast.parse(GALLERY.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "bs.ReduceLROnPlateau"
    )
    rows = table(
        {
            "epoch": [*map(str, SHOWN)],
            "loss": [f"{losses[t]:.3g}" for t in SHOWN],
            "rate": [f"{rates[t]:.4g}" for t in SHOWN],
        }
    )
    call = call.replace("bs.", "brainsched.")
    return example_of("ReduceLROnPlateau", call, rows, "the rate falls where the loss stalls")


def summary(documented: Any) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def write(folder: Path) -> None:
    """Write all pages, their index and the pictures."""
    gallery = load_gallery()
    drawn = calls(gallery)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    schedules, others = [], []
    for name in sorted(brainsched.__all__, key=str.lower):
        found = getattr(brainsched, name)
        is_schedule = name in brainsched.schedules.__all__ and inspect.isclass(found)
        (schedules if is_schedule else others).append(name)
        if not is_schedule:
            is_class = inspect.isclass(found)
            directive = f"autoclass:: {name}\n{MEMBERS}" if is_class else f"autofunction:: {name}"
            text = page(name, f".. {directive}{BESIDES.get(name, '')}")
        elif name == "ReduceLROnPlateau":
            text = class_page(found, name, plateau_example(gallery, folder))
        elif name in drawn:
            text = class_page(found, name, schedule_example(name, *drawn[name], folder))
        else:  # one of OTHERS, with its default arguments
            text = class_page(
                found, name, schedule_example(name, found(1.0), f"brainsched.{name}(1.0)", folder)
            )
        (folder / f"{name}.rst").write_text(text)

    for name in brainsched.trainer.__all__:
        text = page(name, f".. autoclass:: {name}", "brainsched.trainer")
        (folder / f"trainer.{name}.rst").write_text(text)
    flax = ".. automodule:: brainsched.flax"
    (folder / "flax.rst").write_text(page("brainsched.flax", flax))

    def listed(names: "list[str]", role: str) -> str:
        rows = "".join(
            f"   * - :{role}:`{name}`\n     - {summary(getattr(brainsched, name))}\n"
            for name in names
        )
        return f".. list-table::\n   :widths: 35 65\n\n{rows}"

    def tree(caption: str, pages: "list[str]") -> str:
        entries = "".join(f"   {name}\n" for name in pages)
        return f".. toctree::\n   :hidden:\n   :caption: {caption}\n\n{entries}\n"

    bridges = ["flax", *(f"trainer.{name}" for name in brainsched.trainer.__all__)]
    body = (
        f"The schedules\n-------------\n\n{listed(schedules, 'obj')}\n"
        f"The rest\n--------\n\n{listed(others, 'obj')}\n"
        f":doc:`brainsched.flax <flax>` teaches ``flax.serialization`` to save schedulers, and "
        + ", ".join(f":obj:`brainsched.trainer.{name}`" for name in brainsched.trainer.__all__)
        + " is for ``braintools.trainer``.\n\n"
        + tree("Schedules", schedules)
        + tree("The rest", [*others, *bridges])
    )
    (folder / "index.rst").write_text(page("Reference", body))


def let_title_break(app: Sphinx, name: str, template: str, context: Any, doctree: Any) -> None:
    """Let a name in a title break between its words, where the window is narrow."""
    between_words = re.compile(r"(?<=_)|(?<=[a-z])(?=[A-Z])")
    context["body"] = re.sub(
        r"<h1>[^<]*", lambda title: between_words.sub("<wbr>", title[0]), context.get("body", "")
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before Sphinx looks for sources."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "api"))
    app.connect("html-page-context", let_title_break)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
