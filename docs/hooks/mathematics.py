r"""Mathematics without a script: `$...$` and `\[...\]` become MathML while the site is built.

Every browser of today renders MathML itself, so a page needs neither the network nor JavaScript for it. Not
every system has a mathematical font, so that STIX Two Math is copied from the installed `ziamath`.
"""

import html
import importlib.metadata
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# What `pymdownx.arithmatex` leaves, `generic: true`: \(...\) in a line, \[...\] in a paragraph of its own.
_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<kind>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
_FONT = "STIXTwoMath-Regular.ttf"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs calls this with the files of the site, before any is written."""
    font = importlib.metadata.distribution("ziamath").locate_file(f"ziamath/fonts/{_FONT}")
    files.append(File.generated(config, f"assets/{_FONT}", abs_src_path=str(font)))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """MkDocs calls this with the HTML of each page."""
    return _FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match[str]) -> str:
    display = "block" if formula["kind"] == "[" else "inline"
    return convert(html.unescape(formula["latex"]).strip(), display=display)
