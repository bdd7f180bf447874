"""The README's Python code runs from top to bottom, and prints what its comments say."""

import re
from pathlib import Path

import jax.numpy as jnp
import optax

import brainsched

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


def test_the_table_of_boundaries_says_what_ours_and_the_others_do():
    """PyTorch and Keras are not installed: their rows are what their documentation defines."""
    rows = re.findall(r"^\| (optax|PyTorch|Keras) \|(.*)\|(.*)\|(.*)\|$", README.read_text(), re.M)
    stated = {name: eval(f"[{rates.replace('*', '')}]") for name, _, rates, _ in rows}
    assert stated == {
        "optax": [float(optax.piecewise_constant_schedule(1.0, {3: 0.5})(t)) for t in (2, 3, 4)],
        "PyTorch": [1.0 if t < 3 else 0.5 for t in (2, 3, 4)],
        "Keras": [1.0 if t <= 3 else 0.5 for t in (2, 3, 4)],
    }
    for name, _, _, ours in rows:
        scheduler = eval(ours.strip(" `"), vars(brainsched))
        assert scheduler.lr_at([2, 3, 4])[:, 0].tolist() == stated[name]


def test_factors_of_optax_multiply_up_and_values_are_relative_to_the_base_rate():
    theirs = optax.piecewise_constant_schedule(0.1, {30: 0.1, 60: 0.1})
    ours = brainsched.PiecewiseConstantSchedule(0.1, [30, 60], [1.0, 0.1, 0.01]).as_optax()
    for count in (0, 29, 30, 59, 60, 90):
        assert jnp.allclose(theirs(count), ours(count), rtol=1e-6, atol=0)
