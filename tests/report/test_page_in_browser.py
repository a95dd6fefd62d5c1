"""A page in a real browser: it loads without a network, fits a phone, and nothing in it is lost in the dark."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from anysubset import cli

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic", "--hide-scrollbars"),
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser is here: chromium, chromium-browser, google-chrome")

# What a page says of itself once it is laid out; written into its title, where `--dump-dom` shows it.
PROBE = """
<script>
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("main *")].filter(each => !each.closest(".scroll, pre, nav, .pictures")
    && each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 80));
  const style = name => getComputedStyle(document.body)[name];
  const line = document.querySelector("#c-missing .plot path[style*='--s1']");
  document.title = JSON.stringify({
    width: innerWidth, scroll: document.documentElement.scrollWidth, wide,
    paper: style("backgroundColor"), ink: style("color"), line: getComputedStyle(line).stroke,
    sticky: getComputedStyle(document.querySelector("nav")).position,
    images: [...document.images].every(each => each.naturalWidth > 0),
    outside: performance.getEntriesByType("resource").map(each => each.name.slice(0, 40)),
  });
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on a run of utterances that is trained for a few steps."""
    folder = tmp_path_factory.mktemp("page")
    assert cli.main(["demo", "--task", "sentiment", "--output", str(folder / "demo"), "--train.steps", "4"]) == 0
    return folder / "demo/report.html"


def browse(page: Path, tmp_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open the page in the browser; its output and log."""
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'user'}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def probed(page: Path, tmp_path: Path, *flags: str) -> dict:
    """Measurements that the probe script makes on the page."""
    copy = tmp_path / "probed.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")
    done = browse(copy, tmp_path, "--dump-dom", "--enable-logging=stderr", *flags)
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, done.stderr
    return json.loads(title[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.mark.parametrize(("size", "width"), [("1280,900", 1280), ("500,900", 500)])
def test_the_page_fits_the_window_and_loads_nothing_else(page: Path, tmp_path: Path, size: str, width: int):
    measured = probed(page, tmp_path, f"--window-size={size}")
    assert measured["width"] == width
    assert measured["scroll"] <= width
    assert measured["wide"] == []
    assert measured["sticky"] == "sticky"
    assert measured["images"]
    assert [url for url in measured["outside"] if not url.startswith("data:")] == []


def test_figures_follow_the_light_or_dark_setting(page: Path, tmp_path: Path):
    light = probed(page, tmp_path)
    dark = probed(page, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert (light["paper"], dark["paper"]) == ("rgb(255, 255, 255)", "rgb(20, 23, 28)")
    assert light["ink"] != dark["ink"]
    assert light["line"] != dark["line"]


def test_the_page_can_be_printed(page: Path, tmp_path: Path):
    browse(page, tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    content = (tmp_path / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 12
