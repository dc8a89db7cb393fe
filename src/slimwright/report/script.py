"""The one script of a report: Vega with everything it needs, and a few lines that draw each chart from its JSON.

Vega runs in its interpreter mode, so no text is ever compiled to code, and a page may allow exactly this script by
its hash and nothing else.
"""

from functools import cache

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
