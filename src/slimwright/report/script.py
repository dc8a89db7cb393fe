"""The one script of a report: Vega with everything it needs, and a few lines that draw each chart from its JSON.

Vega runs in its interpreter mode, so no text is ever compiled to code, and a page may allow exactly this script by
its hash and nothing else.
"""

import base64
import hashlib
import json
from functools import cache
from typing import Any

import vl_convert

DRAW = """
const nothing = () => Promise.reject(new Error("a report loads nothing"));
const loader = {load: nothing, sanitize: nothing, http: nothing, file: nothing};
const options = {mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false, loader};
const draw = (holder) => {
  const spec = JSON.parse(document.getElementById(holder.dataset.spec).textContent);
  return vegaEmbed(holder.querySelector(".canvas"), spec, options).then(
    () => { holder.dataset.state = "drawn"; },
    (error) => {
      holder.dataset.state = "failed";
      holder.querySelector(".canvas").textContent = "This chart could not be drawn: " + error.message;
    },
  );
};
document.querySelectorAll("[data-spec]").forEach(draw);
"""


@cache
def chart_script() -> str:
    """Return the script's text, safe inside a script element."""
    text: str = vl_convert.javascript_bundle(DRAW).replace("\r", "")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def policy(script: str) -> str:
    """Return a Content-Security-Policy that allows this script, inline styles, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
    return f"{allowed}; base-uri 'none'; form-action 'none'"


def embedded(spec: dict[str, Any]) -> str:
    """Return a spec as JSON that no text in it can lead out of its script element."""
    text = json.dumps(spec, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
