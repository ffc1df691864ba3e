"""Rendering: a template and plain values in, one HTML file out."""

import json
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_text
from progrpo.pages.figures import describe, mark, palette_css

TEMPLATES = Path(__file__).parent / "templates"


def write_html(out: Path, template: str, view: dict[str, Any]) -> Path:
    """Write a page as a single HTML file that loads nothing from anywhere. It is never half written.

    Every text is escaped, and no text can end the script element that holds the page's JSON. ``figures`` and
    ``tables`` of the view are what the page's script draws and exports, by id.

    Raises:
        ConfigError: Plotly or Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigError(f"a report needs {error.name}; install it with: pip install 'progrpo[report]'.") from None
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Jinja's tojson escapes <, >, & and ' (as \u003c, ...), so that no text of a response can close the script element.
    # NaN is refused here, not by the reader's browser.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    page = environment.get_template(template).render(
        view,
        descriptions={name: describe(figure) for name, figure in view["figures"].items()},
        plotly_js=Markup(get_plotlyjs()),
        light_palette=Markup(palette_css(dark=False)),
        dark_palette=Markup(palette_css(dark=True)),
        mark=mark,
    )
    # JSON may hold one half of a surrogate pair, from a character that was cut in two. UTF-8 has no bytes for it.
    write_text(out, page.encode("utf-8", "replace").decode("utf-8"))
    return out
