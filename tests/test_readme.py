"""The Python code of the README and of the pages of the site runs, and prints what it says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [
    README,
    DOCS / "index.md",
    DOCS / "schedule-equivalents.md",
    *sorted((DOCS / "guides").glob("*.md")),
]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks_of(page: Path) -> list[str]:
    """Return the code blocks, each at its line; one marked ``python no-run`` is not among them."""
    text = page.read_text()
    return ["\n" * text[: m.start(1)].count("\n") + m[1] for m in BLOCK.finditer(text)]


def prints(statement: ast.stmt) -> bool:
    calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
    defined = isinstance(statement, ast.FunctionDef | ast.ClassDef)
    return not defined and any(ast.unparse(call.func) == "print" for call in calls)


def stated_output(block: str) -> list[str]:
    """Return what a block says that it prints: the comments just below a statement that prints."""
    lines = block.splitlines()
    result = []
    for statement in ast.parse(block).body:
        number = statement.end_lineno or 0
        while prints(statement) and number < len(lines) and lines[number].startswith("# "):
            result.append(lines[number].removeprefix("# "))
            number += 1
    return result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_runs_from_top_to_bottom_and_prints_what_it_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": page.stem}
    expected = []
    for block in blocks_of(page):
        exec(compile(block, str(page), "exec"), namespace)
        expected += stated_output(block)
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_have_code_and_every_block_of_it_is_run_or_marked(page):
    fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)[::2]
    assert {fence for fence in fences if "python" in fence} <= {"python", "python no-run"}
    assert blocks_of(page)


def test_a_block_that_prints_something_else_is_noticed():
    block = 'print("a",\n      "b")\n# a b\nfor i in range(2):\n    print(i)\n# 0\n# 1\n\n# why\n'
    assert stated_output(block) == ["a b", "0", "1"]
