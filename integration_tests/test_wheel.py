"""The wheel, built here and installed alone: the README's first example runs from it."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import brainsched

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def run(command, **options):
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel without the network: hatchling is in the test extra."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index"]
    run([*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)])
    (built,) = folder.glob("*.whl")
    return built


def test_it_has_the_package_its_types_and_its_licence_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "brainsched").rglob("*")
        if path.is_file() and path.suffix in (".py", ".typed")
    }
    described = f"brainsched-{brainsched.__version__}.dist-info"
    assert {name for name in names if not name.startswith(described)} == package
    assert f"{described}/licenses/LICENSE" in names


def test_the_first_example_runs_from_it_without_the_repository(wheel, tmp_path):
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index"]
    run([*pip, "--no-deps", "--target", str(target), str(wheel)])
    example = re.search(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert example is not None
    where = (
        "\nimport sys\nprint(*{m.__file__ for n, m in sys.modules.items() if 'brainsched' in n})\n"
    )
    (tmp_path / "example.py").write_text(example[1] + where)

    # The dependencies are those of this environment. The target comes before what it has installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(target)
    command = [sys.executable, "-W", "error", "example.py"]
    *printed, last = run(command, cwd=tmp_path, env=environment).splitlines()
    assert printed[-1] in example[1]
    assert len(last.split()) > 10
    assert [file for file in last.split() if not file.startswith(str(target))] == []
