"""Hooks of mkdocs.yml: pages that lie outside docs, notebooks as pages, and links as they are on the site.

Links in the pages are those of the repository, so that they work in its browser too.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
# Pages of the site, by their place in the repository.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/NOTES.md": "engineering/notes.md",
}
RESULTS = "benchmarks/results/"
NOTEBOOK = ".ipynb"
LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^)\s]+)\)")


def place_on_site(path: str) -> str | None:
    """Return the place on the site of a file of the repository, or None if the site does not have it."""
    if path == "docs/README.md":
        return "index.md"
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        place = path.removeprefix("docs/")
        return place.removesuffix(NOTEBOOK) + ".md" if place.endswith(NOTEBOOK) else place
    if path.startswith(RESULTS) and path.endswith(".json"):
        return "results/" + path.removeprefix(RESULTS)
    return None


def with_site_links(markdown: str, source: str, place: str) -> str:
    """Return a page with its links changed to those of the site; a link to what the site lacks becomes its text.

    Args:
        markdown: the page.
        source: its place in the repository.
        place: its place on the site.
    """

    def replace(link: re.Match[str]) -> str:
        target, _, anchor = link["target"].partition("#")
        if not target or ":" in target:
            return link[0]
        found = place_on_site(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))
        if found is None:
            return link["text"].strip("![]")
        relative = posixpath.relpath(found, posixpath.dirname(place) or ".")
        return f"{link['text']}({relative}{'#' + anchor if anchor else ''})"

    return LINK.sub(replace, markdown)


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook with its outputs as a page, and the pictures of the outputs by name."""
    resources = {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
    page, found = MarkdownExporter().from_filename(str(path), resources=resources)
    # A link in HTML, since those in Markdown lead to pages.
    download = f'<a href="{path.name}" download>Download this notebook</a>'
    return f"{page}\n{download}\n", found["outputs"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.remove(files.src_uris["README.md"])
    for notebook in [file for file in files if file.src_uri.endswith(NOTEBOOK)]:
        page, pictures = notebook_page(Path(config.docs_dir, notebook.src_uri))
        files.append(File.generated(config, notebook.src_uri.removesuffix(NOTEBOOK) + ".md", content=page))
        for name, picture in pictures.items():
            files.append(
                File.generated(config, posixpath.join(posixpath.dirname(notebook.src_uri), name), content=picture)
            )
    for source, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted((ROOT / RESULTS).glob("**/*.json")):
        place = place_on_site(path.relative_to(ROOT).as_posix())
        assert place is not None
        files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    place = page.file.src_uri
    source = next((path for path, other in PAGES.items() if other == place), f"docs/{place}")
    return with_site_links(markdown, source, place)
