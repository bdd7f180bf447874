"""What is written in several places is the same in all of them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

import brainsched

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_and_the_changelog_have_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == brainsched.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    latest = next(v for v in re.findall(r"^## (\S+)", changelog, re.M) if v != "Unreleased")
    assert latest == brainsched.__version__


def test_the_oldest_versions_that_are_tested_are_the_oldest_that_are_allowed():
    extras = PROJECT["optional-dependencies"]
    allowed = dict(line.split(">=") for line in [*PROJECT["dependencies"], *extras["flax"]])
    pins = re.findall(r"^(.+)==(.+)$", (ROOT / ".ci" / "oldest.txt").read_text(), re.M)
    tested = {name: version for name, version in pins if name != "jaxlib"}

    def parts(version):
        return [int(part) for part in version.split(".") if part != "0"]

    assert {name: parts(version) for name, version in tested.items()} == {
        name: parts(version) for name, version in allowed.items()
    }
    assert dict(pins)["jaxlib"] == dict(pins)["jax"]


def test_the_pythons_that_are_tested_are_those_that_are_named():
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.M)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert workflow["jobs"]["fast"]["strategy"]["matrix"]["python"] == named
    assert sorted(re.findall(r"\b3\.\d+", (ROOT / ".ci" / "run").read_text())) == named
    assert PROJECT["requires-python"] == f">={named[0]}"
