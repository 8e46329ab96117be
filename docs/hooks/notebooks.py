"""Notebooks as pages: each is executed while the site is built, and becomes Markdown like any other page.

What is in the repository has no outputs, so that a change of the library never leaves old ones behind; an
error in a cell ends the build. `NOTEBOOKS=0 mkdocs serve` shows them without running them.
"""

import base64
import functools
import hashlib
import os
import pathlib
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from traitlets.config import Config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs calls this with the files of the site: beside each notebook comes its page."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb") and file.abs_src_path is not None:
            page, pictures = _converted(pathlib.Path(file.abs_src_path).read_text())
            stem = file.src_uri.removesuffix(".ipynb")
            files.append(File.generated(config, f"{stem}.md", content=page))
            folder = stem.rpartition("/")[0]
            for name, picture in pictures.items():
                files.append(File.generated(config, f"{folder}/{name}", content=picture))
    return files


@functools.cache  # `mkdocs serve` builds at each change
def _converted(text: str) -> tuple[str, dict[str, bytes]]:
    """Markdown, and the pictures in it by name."""
    notebook = nbformat.reads(text, as_version=4)
    if os.environ.get("NOTEBOOKS", "1") != "0":
        # Sockets of the file system, not ports: nobody else on the machine can listen.
        client = NotebookClient(notebook, timeout=600, config=Config(KernelManager={"transport": "ipc"}))
        client.execute(env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    parts, pictures = [], {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data: dict[str, Any] = output.get("data", {})
            if "image/png" in data:
                picture = base64.b64decode(data["image/png"])
                name = f"{hashlib.sha256(picture).hexdigest()[:12]}.png"
                pictures[name] = picture
                parts.append(f"![What the cell above draws]({name})")
            elif written := output.get("text", data.get("text/plain")):
                parts.append(f"```text\n{written.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures
