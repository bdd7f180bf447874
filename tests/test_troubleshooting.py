"""The guide to errors and warnings has a row for each that the package can raise."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import brainsched
from brainsched import _evaluation

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "troubleshooting.md"
PACKAGE = Path(brainsched.__file__).parent
ROWS = re.findall(r"^\| `(.+?)` \|", GUIDE.read_text(), re.MULTILINE)


def text_of(node: ast.expr) -> str:
    """Return a message, with an ellipsis for each part that is not known before it is raised."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    return "…"


def messages(source: str) -> Iterator[str]:
    """Yield what a module gives to the errors and warnings that it makes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rpartition(".")[2]
            message = text_of(node.args[0])
            if (name.endswith("Error") or name == "warn") and message.strip("… "):
                yield message


def has_a_row(message: str, rows: list[str]) -> bool:
    """Whether a row has the message: it may leave out the end, and what varies."""
    patterns = (".*".join(map(re.escape, row.split("…"))) for row in rows)
    return any(re.match(pattern, message, re.DOTALL) for pattern in patterns)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_message_has_a_row_in_the_guide(path):
    missing = [text for text in messages(path.read_text()) if not has_a_row(text, ROWS)]
    assert not missing, f"{GUIDE} has no row for these; add one, with cause and cure"


def test_so_has_every_mistake_of_a_users_formula():
    for _, cure in _evaluation._MISTAKES:
        assert has_a_row(f"… {cure}", ROWS), f"{GUIDE} has no row for {cure!r}"


def test_a_message_without_a_row_is_noticed():
    (found,) = messages('raise ValueError(f"{name} is upside " f"down, got {value}")')
    assert found == "… is upside down, got …"
    assert has_a_row(found, ["… is upside down, …"])
    assert not has_a_row(found, ["… must …"])
