"""What the docstrings write as Optax's do, for `help()`, in the words that the site's Markdown knows."""

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Named in `mkdocs.yml`; Griffe calls it with everything that has a docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Examples as a section with code, `.. math::` as a formula."""
        if obj.docstring is not None:
            text = re.sub(r"^( *Example):$", r"\1s:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"\.\. math::((?:.*\S.*\n?)+)", _formula, text)


def _formula(directive: re.Match[str]) -> str:
    return rf"\[{' '.join(directive[1].split())}\]" + "\n"
