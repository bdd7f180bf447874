"""The wheel, built here and installed into a new environment: the README's examples run there."""

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import brainsched

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def run(command, **options):
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
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


def test_with_the_flax_extra_the_examples_run_in_a_new_environment(wheel, tmp_path):
    """The only test that needs a package index."""
    venv.create(tmp_path / "new", with_pip=True)
    python = str(tmp_path / "new" / "bin" / "python")
    run([python, "-m", "pip", "install", "--quiet", f"{wheel}[flax]"])
    readme = (ROOT / "README.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S)
    where = "import sys\nprint(*{m.__file__ for n, m in sys.modules.items() if 'brainsched' in n})"
    (tmp_path / "example.py").write_text("\n".join([*examples, where]))
    *printed, files = run([python, "-I", "-W", "error", "example.py"], cwd=tmp_path).splitlines()
    assert len(printed) >= 2
    assert [line for line in printed if f"# {line}" not in readme] == []
    assert len(files.split()) > 10
    assert [file for file in files.split() if not file.startswith(str(tmp_path / "new"))] == []
