"""The site builds without a warning, and none of its internal links is dead."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent


class Page(HTMLParser):
    """The ids of a page, and the links and pictures on it that stay on the site."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            if name in ("href", "src") and value and not urlsplit(value).scheme:
                self.links.append(value)


def test_the_site_builds_and_no_internal_link_is_dead(tmp_path):
    site = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-d", str(tmp_path / "cache")]
    found = subprocess.run([*command, ".", str(site)], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        page = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert "_images/" in page, "its pictures"
        (download,) = (site / "_downloads").rglob(path.name)
        assert download.read_bytes() == path.read_bytes()
    assert "diffae_core.diffusion.DiffusionModel.generate" in (site / "docs" / "api.html").read_text(encoding="utf-8")
    pages = {path: Page(path) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (parts.fragment and parts.fragment not in pages[target].ids):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert not dead, dead
