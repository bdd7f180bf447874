"""The README's Python code runs from top to bottom, and prints what its comments say."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_readme_code_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 10
    expected = []
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
        expected += re.findall(r"^print\(.*\n# (.*)$", block, re.MULTILINE)
    printed = capsys.readouterr().out.splitlines()
    assert printed == expected
    assert (tmp_path / "rates.jsonl").read_text() == '{"epoch": 0, "lr": [0.019999999552965164]}\n'
