"""The HTML of a page: one file with its style, script and images, which nothing in the shown texts can change."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from grit_lightning.report.completions import Shown
from grit_lightning.report.curves import HEIGHT, WIDTH
from grit_lightning.report.drawing import COLOURS
from grit_lightning.report.pictures import Pictures
from grit_lightning.system.paths import asset
from grit_lightning.system.printable import printable_lines

_CONTENT = (
    "facts", "table", "notes", "jobs", "curves", "pairs", "pairs_note", "kinds", "pair_datasets", "steps", "steps_note",
    "samples", "datasets",
)  # fmt: skip
"""Parts of a page, each of which may be left out."""


def html(*, title: str, subtitle: str, pictures: Pictures, content: Mapping[str, Any]) -> str:
    """Return the page.

    All texts are escaped. The page may load nothing, and run no script but its own, by a Content Security Policy.

    Args:
        title, subtitle: its heading.
        pictures: the images that it uses.
        content: its parts, by the names of ``_CONTENT``.
    """
    script = source("boxes.js") + source("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            subtitle=subtitle + _left_out(pictures),
            pictures=pictures.all(),
            curve_size=(WIDTH, HEIGHT),
            style=Markup(source("completion.css") + source("style.css")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
            **(dict.fromkeys(_CONTENT) | dict(content)),
        )
    )


def completion_html(one: Shown, heading: str, pictures: Pictures) -> str:
    """Return one completion with its images, for a page that has ``completion.css`` and ``boxes.js``."""
    macros = _environment().get_template("completion.html").module
    return str(macros.symbols(pictures.all()) + macros.completion(one, heading))  # type: ignore[attr-defined]


def source(name: str) -> str:
    """Return a part of pages: a template, a style or a script."""
    return asset(f"report/{name}").read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_shown, loader=FunctionLoader(source)
    )
    environment.globals["colours"] = len(COLOURS)
    return environment


def _shown(value: Any) -> Any:
    """Escape characters that are not printable in every text that the template inserts."""
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _left_out(pictures: Pictures) -> str:
    return f"; {pictures.left_out} images are not embedded, because the page has many" if pictures.left_out else ""
