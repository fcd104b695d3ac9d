"""The two pages for people: / and /docs. Plain files from here, nothing from outside, no inline script."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

_SWAGGER_UI: Final = Path(__file__).parent / "vendor" / "swagger-ui"

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">{head}
<title>{title}</title></head>
<body>
{body}
</body>
</html>
"""

_DOCS_HEAD: Final = '<link rel="stylesheet" href="docs/assets/swagger-ui.css">'

_DOCS_BODY: Final = """<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>"""

# validatorUrl: Swagger UI would otherwise send the address of the document to a server outside, to draw a badge.
_DOCS_START: Final = """window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  validatorUrl: null,
});
"""

_ENDPOINTS: Final = (
    ("metrics", "for Prometheus"),
    ("api/v1/status", "the meter itself: readiness, problems, totals"),
    ("api/v1/gpus", "every GPU: energy, power, who uses it"),
    ("api/v1/servers", "every inference server: tokens, energy, the GPUs it holds"),
    ("api/v1/efficiency", "tokens per joule over a window"),
    ("api/v1/stream", "all of it, once a second, as server-sent events"),
    ("docs", "the REST API, to read and try"),
    ("openapi.json", "the REST API, for programs"),
    ("-/healthy", "200 while the meter samples"),
    ("-/ready", "200 once everything was read once"),
)


def add_pages(app: FastAPI, *, simulated: bool) -> None:
    """Add / and /docs to the app. A demo says in both that its figures are made up."""
    landing = _landing(app.title, simulated=simulated)
    docs = _PAGE.format(head=_DOCS_HEAD, title=escape(app.title), body=_DOCS_BODY)

    async def get_landing() -> Response:
        return HTMLResponse(landing)

    async def get_docs() -> Response:
        return HTMLResponse(docs)

    async def get_docs_start() -> Response:
        return Response(_DOCS_START, media_type="text/javascript")

    for path, page in (("/", get_landing), ("/docs", get_docs), ("/docs/start.js", get_docs_start)):
        app.add_api_route(path, page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/docs/assets", _Assets(directory=_SWAGGER_UI))


class _Assets(StaticFiles):
    """Files that a browser may keep, and asks for again by their ETag."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["cache-control"] = "no-cache"
        return response


def _landing(title: str, *, simulated: bool) -> str:
    warning = "<p><strong>This is a demo: every figure is simulated.</strong></p>\n" if simulated else ""
    items = "\n".join(f'<li><a href="{path}">/{path}</a> {escape(what)}</li>' for path, what in _ENDPOINTS)
    return _PAGE.format(head="", title=escape(title), body=f"<h1>{escape(title)}</h1>\n{warning}<ul>\n{items}\n</ul>")
