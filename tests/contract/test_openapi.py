"""What programs rely on changes only on purpose; `python -m tests.contract.test_openapi` writes it down anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import Settings

SNAPSHOT = Path(__file__).parent / "openapi.json"
Json = dict[str, Any]


def api() -> Json:
    document: Json = create_app(Settings()).openapi()
    return document


def promised(document: Json) -> Json:
    """What each operation takes and answers, and the members of what it answers with."""
    operations = {
        f"{method.upper()} {path}": {
            "takes": sorted(map(taken, operation.get("parameters", []))),
            "body": sorted(operation.get("requestBody", {}).get("content", {})),
            "answers": {status: answered(one) for status, one in sorted(operation["responses"].items())},
        }
        for path, methods in sorted(document["paths"].items())
        for method, operation in sorted(methods.items())
    }
    schemas = document["components"]["schemas"]
    return {"operations": operations, "members": {name: sorted(one["properties"]) for name, one in schemas.items()}}


def taken(parameter: Json) -> str:
    return f"{parameter['in']} {parameter['name']}{'' if parameter.get('required') else '?'}"


def answered(response: Json) -> list[str]:
    """Media types with the members of their objects, or the problems; and headers."""
    told = []
    for kind, content in response.get("content", {}).items():
        schema = content.get("schema", {})
        names = sorted(content.get("examples", {}) or schema.get("properties", {})) or [schema.get("$ref", "")]
        told.append(f"{kind}: {', '.join(names)}")
    return [*told, *(f"header {name}" for name in sorted(response.get("headers", {})))]


def written(promise: Json) -> str:
    return json.dumps(promise, indent=1, ensure_ascii=False) + "\n"


def test_the_api_is_the_one_that_was_written_down():
    assert written(promised(api())) == SNAPSHOT.read_text()


def test_no_route_documents_an_error_that_is_no_problem():
    operations = [one for methods in api()["paths"].values() for one in methods.values()]
    kinds = {kind for one in operations for status, said in one["responses"].items() if status >= "400"
             for kind in said.get("content", {})}  # fmt: skip
    assert kinds == {"application/problem+json"}


if __name__ == "__main__":
    SNAPSHOT.write_text(written(promised(api())))
