"""Each tutorial, executed afresh, shows the text and the pictures that are stored in it."""

import base64
import copy
import functools
import io
import itertools
import re
from pathlib import Path

import matplotlib.image
import nbformat
import numpy as np
import pytest
import scipy.ndimage
from matplotlib.figure import Figure
from numpy.linalg import norm
from tutorial_runs import METADATA, VERSIONS, execute

TUTORIALS = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.ipynb"))
# Another processor rounds differently, and a training carries that on. So a tutorial prints what it
# can round to what two machines share, and inequalities of what it cannot. Decimal numbers may
# differ by this much of their size; whole ones (of epochs, parameters, devices), and 0.0, are the
# same.
NUMBERS = 0.02
# Pictures are compared by how much ink is where, averaged over squares in which a line may move: in
# the root mean square the difference may be this much of the ink. The spikes of a network trained
# without AVX are at 0.27 from those of one trained with it; an empty picture is at 1.
PICTURES = 0.4
SQUARE = 20
# Other versions of JAX and brainstate draw other weights. With them a tutorial must run, and show
# the same words, and pictures of the same size.
NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?(?:e[-+]?\d+)?|nan)")
DECIMAL = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+(?:e[-+]?\d+)?|e[-+]?\d+)(?![\w.]*\w)")


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def outputs(notebook: nbformat.NotebookNode) -> list[list[tuple[str, str]]]:
    """Return what each cell shows: a list of kinds, each with its text or picture."""
    found: list[list[tuple[str, str]]] = []
    for cell in notebook.cells:
        found.append([])
        for output in cell.get("outputs", []):
            stream = output.output_type == "stream"
            found[-1] += [(output.name, output.text)] if stream else sorted(output.data.items())
    return found


def pixels(data: str) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(data)), format="png")


def png(values: np.ndarray) -> str:
    file = io.BytesIO()
    matplotlib.image.imsave(file, values, format="png")
    return base64.b64encode(file.getvalue()).decode()


@functools.cache
def ink(data: str) -> np.ndarray:
    darkness = 1 - pixels(data)[..., :3]
    return scipy.ndimage.uniform_filter(darkness, size=(SQUARE, SQUARE, 1), mode="constant")


def text_differs(shown: str, stored: str) -> bool:
    new, old = (np.array(DECIMAL.findall(text), dtype=float) for text in (shown, stored))
    same_words = DECIMAL.sub("#", shown) == DECIMAL.sub("#", stored)
    return not (same_words and np.allclose(new, old, rtol=NUMBERS, atol=0))


def picture_differs(shown: str, stored: str) -> bool:
    new, old = ink(shown), ink(stored)
    return new.shape != old.shape or bool(norm(new - old) > PICTURES * norm(old))


def words(cells: list[list[tuple[str, str]]]) -> list[list[tuple[str, object]]]:
    """Return what does not depend on the numbers: words, and the sizes of pictures."""

    def rest(kind: str, content: str) -> object:
        if kind == "image/png":
            return pixels(content).shape
        return NUMBER.sub("#", content).split()  # whose columns may be narrower

    return [[(kind, rest(kind, content)) for kind, content in cell] for cell in cells]


def differences(
    shown: list[list[tuple[str, str]]], stored: list[list[tuple[str, str]]]
) -> list[str]:
    """Say in which cells two runs of a notebook differ, and what each of them shows there."""
    found = []
    for number, cells in enumerate(zip(shown, stored, strict=True)):
        for (kind, new), (stored_kind, old) in itertools.zip_longest(*cells, fillvalue=("", "")):
            differs = picture_differs if kind == "image/png" else text_differs
            if kind != stored_kind or differs(new, old):
                found.append(f"cell {number} shows {new[:500]!r}, stored is {old[:500]!r}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_executed_afresh_it_shows_what_is_stored(path, tmp_path):
    stored = read(path)
    shown, expected = outputs(execute(path, tmp_path)), outputs(stored)
    if stored.metadata.versions == VERSIONS:
        assert differences(shown, expected) == []
    else:
        assert words(shown) == words(expected)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_its_file_has_text_and_pictures_and_nothing_of_the_machine(path):
    notebook = read(path)
    nbformat.validate(notebook)
    versions = notebook.metadata.pop("versions")
    assert set(versions) == set(VERSIONS)
    assert notebook.metadata == METADATA
    assert [cell.id for cell in notebook.cells if not set(cell.metadata) <= {"mystnb"}] == []
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {kind for cell in outputs(notebook) for kind, _ in cell}
    assert {"image/png", "stdout"} <= kinds <= {"image/png", "stdout", "text/plain"}
    images = re.compile(r'"image/png": "[^"]*"')
    text = images.sub("", path.read_text())
    # A folder of any machine, as /folder/file is, or the address of an object.
    assert re.findall(r"(?<![\w./])/\w+/|file:/| at 0x", text) == []


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_an_output_that_was_edited_is_noticed(path):
    """A word more in a text, and an empty sheet for a picture, each of them alone."""
    stored = outputs(read(path))
    for cell, shown in enumerate(stored):
        for index, (kind, content) in enumerate(shown):
            edited = copy.deepcopy(stored)
            empty = kind == "image/png"
            other = png(np.ones_like(pixels(content))) if empty else f"{content} more"
            edited[cell][index] = kind, other
            assert len(differences(stored, edited)) == 1


# The comparison itself


@pytest.mark.parametrize(
    ("shown", "stored", "differs"),
    [
        ("loss 0.5049, 3 groups", "loss 0.5, 3 groups", False),
        ("loss 0.52, 3 groups", "loss 0.5, 3 groups", True),
        ("1.01e-03", "1e-3", False),
        ("4 groups", "3 groups", True),
        ("moved 0.0.", "moved 0.0.", False),
        ("moved 1e-9.", "moved 0.0.", True),
        ("-0.5", "0.5", True),
        ("0.5 0.5", "0.5", True),
        ("loss 0.5", "rate 0.5", True),
        ("loss nan", "loss 0.5", True),
        ("version 0.2.0", "version 0.2.1", True),
    ],
)
def test_decimal_numbers_have_a_tolerance_and_all_else_is_the_same(shown, stored, differs):
    assert text_differs(shown, stored) is differs


def drawn(values: np.ndarray, width: float = 4) -> str:
    figure = Figure(figsize=(width, 3), dpi=100, layout="constrained")
    figure.subplots().plot(values)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return base64.b64encode(file.getvalue()).decode()


COSINE = np.cos(np.linspace(0, np.pi, 100))


@pytest.mark.parametrize(
    ("shown", "differs"),
    [
        (drawn(COSINE), False),
        (drawn(COSINE + 0.02 * np.sin(np.arange(100))), False),
        (drawn(np.linspace(1, -1, 100)), True),
        (drawn(-COSINE), True),
        (drawn(COSINE, width=5), True),
    ],
    ids=["the same", "a little noise", "a straight line", "upside down", "wider"],
)
def test_a_picture_is_the_same_with_a_little_noise_and_not_with_another_curve(shown, differs):
    assert picture_differs(shown, drawn(COSINE)) is differs


def sheet(value: float, width: int = 20) -> str:
    return png(np.full((10, width, 3), value))


def test_with_other_versions_the_words_are_the_same():
    stored = [[("stdout", "loss 0.5, moved 1e-3, 3 groups")], [("image/png", sheet(0.5))]]
    others = [[("stdout", "loss  nan, moved 0.0, 12 groups")], [("image/png", sheet(0.9))]]
    assert words(others) == words(stored)
    assert words([[("stdout", "rate 0.5, moved 1e-3, 3 groups")], stored[1]]) != words(stored)
    assert words([stored[0], [("image/png", sheet(0.5, width=30))]]) != words(stored)
    assert words([stored[0], []]) != words(stored)


def test_an_output_that_is_missing_or_of_another_kind_is_noticed():
    stored = [[], [("stdout", "1.0"), ("image/png", drawn(COSINE))]]
    assert differences(stored, stored) == []
    assert differences([[], [("stdout", "1.0")]], stored)
    assert differences([[], [("stderr", "1.0"), ("image/png", drawn(COSINE))]], stored)
    assert differences(stored, [[("stdout", "1.0")], *stored[1:]])
