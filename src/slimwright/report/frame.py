"""A page: one file with its style, its script and its data inside, which loads nothing and runs nothing else."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from slimwright import units
from slimwright.terminal import printable

HERE = Path(__file__).parent


def framed(
    template: str,
    values: Mapping[str, object],
    script: str,
    specs: Mapping[str, Mapping[str, Any]],
    styles: Sequence[str] = ("page.css",),
) -> str:
    """Return a page as HTML. Values are escaped, and letters that cannot be seen are marked; our own parts are not.

    `specs` are what the script reads, by name.
    """
    pages = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=_seen,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.globals["units"] = units
    # Ours alone: style sheets without texts of a record, our script, and JSON with its brackets escaped.
    style = "\n".join((HERE / name).read_text(encoding="utf-8") for name in styles)
    return pages.get_template(template).render(
        **values,
        specs={name: Markup(embedded(spec)) for name, spec in specs.items()},  # noqa: S704
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=policy(script),
    )


def policy(script: str) -> str:
    """Return a Content-Security-Policy that allows this script, inline styles, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
    return f"{allowed}; base-uri 'none'; form-action 'none'"


def embedded(spec: Mapping[str, Any]) -> str:
    """Return a spec as JSON that no text in it can lead out of its script element."""
    text = json.dumps(spec, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _seen(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
