"""How does the viewer's page reach a browser? Static files with a policy that lets them talk to this service alone.

The page itself holds no data and needs no key; what it then asks for does. Its own modules are served as they are
written; the one library beside them is put in place by `make viewer`, and until then the page says so.
"""

from __future__ import annotations

from pathlib import Path

import orjson
from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from app import __version__
from app.api.routes import services_of
from app.formats import overlay
from app.formats.document import NOTICE
from app.nuclei.taxonomy import CLASSES

HOME = Path(__file__).parents[1] / "viewer"
LIBRARY = "openseadragon.min.js"
LIBRARY_STYLE = "sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE="  # the one rule that OpenSeadragon 6 writes inline
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' '{LIBRARY_STYLE}'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
SERVED = frozenset({".js", ".css", ".svg"})
UNBUILT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Karyon viewer: not built</title></head><body>
<h1>The viewer is not built here</h1>
<p>The page needs one library, OpenSeadragon, which is not part of the source code. With Node.js and npm installed, run
this in the folder that Karyon was checked out to, then load this page again:</p>
<pre>make viewer</pre>
<p>The service needs no restart, and everything else of it works without the page: see <a href="docs">/docs</a>.</p>
<p>Research use only. Not for diagnostic procedures.</p>
</body></html>
"""

router = APIRouter(include_in_schema=False)


def built() -> bool:
    """Whether the page's library is in place."""
    return (HOME / "dist" / LIBRARY).is_file()


@router.head("/viewer")
@router.get("/viewer")
async def viewer(request: Request) -> Response:
    """The page, or how to build it."""
    if not built():
        return HTMLResponse(UNBUILT, 501, HEADERS)
    return await _file("src", "index.html", request)


@router.head("/viewer/")
@router.get("/viewer/")
async def viewer_with_slash() -> Response:
    """The page's own address has no slash at its end: links in it count from there."""
    return RedirectResponse("../viewer", 308)


@router.get("/viewer/config.json")
async def config(request: Request) -> Response:
    """What the page must know before it asks for anything: classes and their colours, limits, the notice."""
    settings = services_of(request).settings
    known = {
        "version": __version__,
        "notice": NOTICE,
        "classes": [{"name": c.name, "colour": c.colour, "rim": overlay.rim(c.colour)} for c in CLASSES],
        "unclassified": {"colour": overlay.OPEN, "rim": overlay.rim(overlay.OPEN)},
        "limits": {
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "min_mpp": settings.min_mpp,
            "max_mpp": settings.max_mpp,
        },
        "key_needed": bool(settings.api_keys) and not settings.allow_anonymous,
    }
    return Response(orjson.dumps(known), headers={"Cache-Control": "no-cache"}, media_type="application/json")


@router.head("/viewer/vendor/{name}")
@router.get("/viewer/vendor/{name}")
async def library(request: Request, name: str) -> Response:
    """What `make viewer` put in place."""
    return await _file("dist", name, request)


@router.head("/viewer/{name}")
@router.get("/viewer/{name}")
async def asset(request: Request, name: str) -> Response:
    """One of the page's own modules, its style or its icon."""
    if Path(name).suffix not in SERVED:
        raise HTTPException(404)
    return await _file("src", name, request)


async def _file(folder: str, name: str, request: Request) -> Response:
    """A file of a folder of ours, never of another one; 304 if the browser has it already."""
    response = await StaticFiles(directory=HOME / folder, check_dir=False).get_response(name, request.scope)
    response.headers.update(HEADERS)
    return response
