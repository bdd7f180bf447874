"""The built site has its pages, pictures, formulas and search, and no link that leads nowhere.

Build it first: ``python -m sphinx -WE docs site``. Then ``python -m pytest docs/test_site.py``.
"""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import brainsched

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
PAGES = sorted(SITE.rglob("*.html"))
GUIDES = [path.stem for path in sorted((ROOT / "docs" / "guides").glob("*.md"))]
TUTORIALS = [path.stem for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(html.parser.HTMLParser):
    """What a page has: the names that can be linked to, the links, and how many of each element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = {""}
        self.links: list[str] = []
        self.elements: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.elements.append(tag)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        self.links += [given[key] for key in ("href", "src") if given.get(key)]


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    assert PAGES, "there is no site: build it with python -m sphinx -WE docs site"
    return {path: Page(path) for path in PAGES}


def api_page(name: str) -> Path:
    return SITE / "api" / f"{name}.html"


def test_no_link_leads_nowhere_and_nothing_is_loaded_from_elsewhere(pages):
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].names if target in pages else {"", parts.fragment}
            if not target.exists() or unquote(parts.fragment) not in known:
                dead.append(f"{path.relative_to(SITE)}: {link}")
    assert dead == []
    loaded = re.compile(r"<(?:script|img|link)[^>]+(?:src|href)=\"(?:https?:)?//", re.IGNORECASE)
    assert [path for path in PAGES if loaded.search(path.read_text())] == []


def test_every_guide_has_its_page_and_is_reached_from_the_first_one(pages):
    first = pages[SITE / "index.html"].links
    assert [guide for guide in GUIDES if f"guides/{guide}.html" not in first] == []


@pytest.mark.parametrize("name", TUTORIALS)
def test_every_tutorial_has_a_page_with_its_pictures_and_is_reached_from_the_first(pages, name):
    assert f"tutorials/{name}.html" in pages[SITE / "index.html"].links
    stored = (ROOT / "docs" / "tutorials" / f"{name}.ipynb").read_text().count('"image/png": "')
    page = SITE / "tutorials" / f"{name}.html"
    shown = {link for link in pages[page].links if link.endswith(".png")}
    assert len(shown) == stored > 0
    assert min((page.parent / picture).stat().st_size for picture in shown) > 5_000


@pytest.mark.parametrize("name", brainsched.__all__)
def test_every_public_name_has_a_page_that_documents_it(pages, name):
    page = pages[api_page(name)]
    assert f"brainsched.{name}" in page.names
    if name in brainsched.schedules.__all__ and isinstance(getattr(brainsched, name), type):
        assert {"img", "table", "math"} <= set(page.elements)
        (picture,) = (link for link in page.links if link.endswith(f"{name}.svg"))
        assert (api_page(name).parent / picture).stat().st_size > 5_000


def test_the_page_of_the_base_has_what_every_schedule_has(pages):
    members = {"lr_at", "step", "get_last_lr", "as_optax", "plot", "formula", "config", "__call__"}
    names = pages[api_page("LRScheduler")].names
    assert {f"brainsched.LRScheduler.{member}" for member in members} <= names


def test_the_table_of_a_schedule_has_the_rates_that_it_gives(pages):
    text = re.sub(r"<[^>]+>|\s+", " ", api_page("StepLR").read_text())
    numbers = re.search(r"rate +(\d[\d. ]+) ", text)
    assert numbers is not None
    expected = [0.5 ** (epoch // 20) for epoch in range(0, 100, 10)]
    assert [float(number) for number in numbers[1].split()] == expected


def test_no_formula_is_left_as_source(pages):
    for path in pages:
        formulas = re.findall(r"<math.*?</math>", path.read_text(), re.DOTALL)
        assert not any("\\" in formula for formula in formulas), path


# In a browser

SCRIPT = """
{frames}
<script>
const look = (page) => ({{
  pictures: [...page.images].map((image) => image.naturalWidth),
  formulas: [...page.querySelectorAll("math")].map((math) => math.getBoundingClientRect().height),
  tables: [...page.querySelectorAll("table.docutils")].map(
    (table) => [table.scrollWidth, table.closest("section").clientWidth]),
  found: [...page.querySelectorAll("ul.search li a")].map((link) => link.textContent),
}});
setTimeout(() => {{
  const frames = [...document.querySelectorAll("iframe")];
  document.body.textContent = JSON.stringify(frames.map((frame) => look(frame.contentDocument)));
}}, 4000);
</script>
"""
FRAME = '<iframe src="file://{site}/{url}" style="width: {width}px; height: 3000px"></iframe>'


@pytest.fixture
def seen(tmp_path):
    """Return a function that opens pages in Chromium, and says of each what its reader sees."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH: on Debian, apt-get install chromium")

    def look(*urls: str, width: int = 1200) -> list[dict[str, list]]:
        frames = "".join(FRAME.format(site=SITE, url=url, width=width) for url in urls)
        frame = tmp_path / "frame.html"
        frame.write_text(SCRIPT.format(frames=frames))
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += ["--allow-file-access-from-files", "--virtual-time-budget=8000"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", f"file://{frame}"]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        body = re.search(r"<body>(.*)</body>", finished.stdout, re.DOTALL)
        assert body is not None, finished.stderr
        return json.loads(body[1])

    return look


def test_a_browser_shows_pictures_and_formulas(seen):
    (page,) = seen("api/CosineAnnealingLR.html")
    assert page["pictures"]
    assert min(page["pictures"]) > 100
    assert len(page["formulas"]) >= 1
    assert min(page["formulas"]) > 5


@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_shows_every_table_of_the_guides_in_its_whole_width(seen, width):
    names = ["schedule-equivalents", *(f"guides/{guide}" for guide in GUIDES)]
    shown = seen(*(f"{name}.html" for name in names), width=width)
    assert sum(len(page["tables"]) for page in shown) > 20
    cut = {
        name: sizes
        for name, page in zip(names, shown, strict=True)
        if (sizes := [size for size in page["tables"] if size[0] > size[1]])
    }
    assert cut == {}


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("warm restarts", "CosineAnnealingWarmRestarts"),
        ("SLURM", "Many"),
        ("get_cosine_schedule_with_warmup", "Coming from"),
    ],
)
def test_a_browser_finds_what_is_searched_for(seen, words, title):
    (page,) = seen(f"search.html?q={words.replace(' ', '+')}")
    assert any(title in entry for entry in page["found"])
