"""How Sphinx builds the site: `make docs`. Nothing is fetched, neither here nor by a reader's browser."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

from mocosfl_mpi import __version__

project = "mocosfl_mpi"
author = "the mocosfl_mpi developers"
copyright = "2026, the mocosfl_mpi developers"  # noqa: A001 - Sphinx wants this name
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
highlight_language = "sh"  # blocks that are indented are commands; everything else says what it is

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
nitpick_ignore_regex = [
    (r"py:.*", r"(numpy|h5py|pathlib|types|collections)\..*"),  # other projects' pages are on the network
    (r"py:.*", r"(pd|os|configuration)\..*"),
    (r"py:.*", r"BadInput|RunFailed|Stopped|PathLike|Resume|.*\.AnyRecord"),
]

html_theme = "furo"
html_title = f"mocosfl_mpi {release}"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

TABLES_OF_CONTENTS = {
    "methods/README": ["*"],
    "evidence/README": ["*", "results/*"],
    "privacy": ["privacy/*"],
    "performance": ["measured/*"],
}
"""Pages that stand above others. What they list is written here: a code host would print the directive."""

ELSEWHERE = {f"measured/{name}": f"../benchmarks/results/{name}.md" for name in ("speed", "small-scale")}
"""Pages that lie outside of this directory, by the page that points to them there and is replaced by them here."""


def _complete(app: Sphinx, page: str, source: list[str]) -> None:
    if page in ELSEWHERE:
        path = Path(app.srcdir, ELSEWHERE[page]).resolve()
        pictures = f"../{Path(ELSEWHERE[page]).parent}/"
        source[0] = re.sub(r"(!\[[^]]*\]\()", rf"\1{pictures}", path.read_text(encoding="utf-8"))
    if page in TABLES_OF_CONTENTS:
        below = "\n".join(TABLES_OF_CONTENTS[page])
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{below}\n```\n"


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", _complete)
