"""How does the API explain itself in a browser without a network? One page from the OpenAPI document.

The usual documentation pages load scripts from a content delivery network, which a hospital's network does not reach.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape

from app.api.explained import QC_CODES, Json

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h2 { margin-top: 2.5rem; border-top: 1px solid #d0d7de; padding-top: 1rem }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f3f4f6; border-radius: 4px }
code { padding: .1em .3em } pre { padding: .8rem; overflow-x: auto }
table { border-collapse: collapse } td, th { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0 }
.method { color: #fff; background: #0b5cad; border-radius: 4px; padding: .1rem .5rem; font-size: .9rem }
"""


def render(openapi: Json) -> str:
    """The page.

    Args:
        openapi: an OpenAPI 3.1 document.

    Returns:
        HTML without scripts, images or links to other hosts.
    """
    info = openapi["info"]
    operations = [
        section
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
        for section in _operation(method, path, operation)
    ]
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} API</title>',
            f"<style>{STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
            f"<p>{escape(info.get('description', ''))}</p>",
            '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>',
            *_keys(openapi),
            *operations,
            "<h2>Technical check</h2>",
            "<p>What the codes in <code>qc.codes</code> and <code>Karyon-QC-Codes</code> mean. "
            "They warn of images that may not be read well, and diagnose nothing.</p>",
            _table("Codes", list(QC_CODES.items())),
            "</body></html>",
        ]
    )


def _keys(openapi: Json) -> Iterator[str]:
    schemes = openapi.get("components", {}).get("securitySchemes", {}).values()
    rows = [(s["name"], "the API key") if s["type"] == "apiKey" else ("Authorization", "Bearer KEY") for s in schemes]
    if rows:
        yield "<p>Where the service asks for API keys, one of these headers carries it:</p>"
        yield _table("Keys", rows)


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    yield f'<h2><span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code></h2>'
    yield f"<p><b>{escape(operation.get('summary', ''))}.</b> {escape(operation.get('description', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield _table("Parameters", [(p["name"], p["in"], p.get("description", "")) for p in parameters])
    if body := operation.get("requestBody"):
        yield _table("Body", [(kind, body.get("description", "")) for kind in body["content"]])
    for sample in operation.get("x-codeSamples", ()):
        yield f"<pre>{escape(sample['source'])}</pre>"
    for status, response in operation.get("responses", {}).items():
        yield from _response(status, response)


def _response(status: str, response: Json) -> Iterator[str]:
    yield f"<h3>{escape(status)}: {escape(response.get('description', ''))}</h3>"
    if headers := response.get("headers"):
        yield _table("Headers", [(name, header["description"]) for name, header in headers.items()])
    for kind, content in response.get("content", {}).items():
        yield f"<p><code>{escape(kind)}</code></p>"
        examples = [content["example"]] if "example" in content else []
        examples += [example["value"] for example in content.get("examples", {}).values()]
        for example in examples:
            shown = escape(json.dumps(example, indent=1, ensure_ascii=False))
            yield f"<details><summary>example</summary><pre>{shown}</pre></details>"


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["<tr>" + "".join(f"<td>{_cell(cell, i)}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows]
    return f"<table><caption>{escape(title)}</caption>{''.join(lines)}</table>"


def _cell(text: str, column: int) -> str:
    return f"<code>{escape(text)}</code>" if column == 0 else escape(text)
