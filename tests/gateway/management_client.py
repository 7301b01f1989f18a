"""A client of the management API that compares every answer with the OpenAPI document of the gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import jsonschema

Json = dict[str, Any]


class Api:
    """The management API at a URL."""

    def __init__(self, url: str, **headers: str) -> None:
        self.http = httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=120)
        self.document: Json = self.http.get("/openapi.json").json()
        self.called: set[str] = set()
        """The operations that were called."""

    def get(self, path: str, status: int = 200, **query: object) -> Any:
        return self.call("GET", path, status=status, query=query)

    def post(self, path: str, body: Json | None = None, status: int = 200) -> Any:
        return self.call("POST", path, body or {}, status)

    def put(self, path: str, body: Json, status: int = 200) -> Any:
        return self.call("PUT", path, body, status)

    def delete(self, path: str, status: int = 200, **query: object) -> Any:
        return self.call("DELETE", path, status=status, query=query)

    def call(self, method: str, path: str, body: Json | None = None, status: int = 200, query: Any = None) -> Any:
        """Send a request; return the JSON of its answer, which has this status and fits the document."""
        words = {
            name: str(value).lower() if isinstance(value, bool) else value for name, value in (query or {}).items()
        }
        answer = self.http.request(method, path, json=body, params=words)
        found = answer.json()
        assert answer.status_code == status, (answer.status_code, found)
        self.validate(method, path, status, found)
        return found

    def validate(self, method: str, path: str, status: int, found: Any) -> None:
        operation = self.operation(method, path)
        self.called.add(operation["operationId"])
        response = operation["responses"][str(status)]
        schema = response["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, "components": self.document["components"]}).validate(found)

    def operation(self, method: str, path: str) -> Json:
        """Return the operation that a path means, as the document has it."""
        for template, methods in self.document["paths"].items():
            pattern = re.sub(r"\\\{\w+\\\}", ".+", re.escape(template))
            if method.lower() in methods and re.fullmatch(pattern, f"/api/v1{path}"):
                found: Json = methods[method.lower()]
                if template.count("{") == 0 or not template.endswith("}"):
                    return found
                last = found
        return last

    def job(self, started: Json) -> Json:
        """Wait until a job has ended, by its events, and return it."""
        with self.events(types="job") as events:
            job: Json = self.get(f"/jobs/{started['id']}")
            while job["state"] in ("running", "stopping"):
                event = next(events)
                if event["type"] == "job" and event["job"]["id"] == started["id"]:
                    job = event["job"]
        return self.get(f"/jobs/{started['id']}")  # type: ignore[no-any-return]

    @contextmanager
    def events(self, path: str = "/events", **query: str) -> Iterator[Iterator[Json]]:
        """Follow events; each has its ``id`` among its members."""
        headers = {"Last-Event-ID": query.pop("after")} if "after" in query else {}
        with self.http.stream("GET", path, params=query, headers=headers, timeout=60) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["Content-Type"] == "text/event-stream"
            lines = answer.iter_lines()
            assert next(lines) == "retry: 2000"
            yield self._parsed(lines)

    def _parsed(self, lines: Iterator[str]) -> Iterator[Json]:
        event: Json = {}
        schema = {"$ref": "#/components/schemas/Event", "components": self.document["components"]}
        for line in lines:
            name, _, value = line.partition(": ")
            if name == "data":
                event |= json.loads(value)
            elif name in ("id", "event"):
                event[f"sse_{name}"] = value
            elif not line and "type" in event:
                assert event["type"] == event["sse_event"]
                if event["type"] not in ("line", "end", "reset"):
                    jsonschema.Draft202012Validator(schema).validate(event)
                yield event
                event = {}
