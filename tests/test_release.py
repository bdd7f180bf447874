"""The version is one, wherever it is written."""

import re
from pathlib import Path

import brainsched

ROOT = Path(__file__).parents[1]


def test_the_citation_and_the_changelog_have_the_version_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.+)$", citation, re.M) == [brainsched.__version__]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    latest = next(v for v in re.findall(r"^## (\S+)", changelog, re.M) if v != "Unreleased")
    assert latest == brainsched.__version__
