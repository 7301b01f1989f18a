"""Checks of generated files by programs and schemas of others."""

from __future__ import annotations

import json
import os
import shutil
from importlib.resources import files
from typing import Any

import jsonschema
import kubernetes_validate
import yaml  # type: ignore[import-untyped]

QUADLET = shutil.which("quadlet", path=f"{os.environ['PATH']}:/usr/libexec/podman:/usr/lib/podman")
COMPOSE_SCHEMA = json.loads(
    (files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text(encoding="utf-8")
)
"""The schema that the Compose specification publishes, as the package carries it."""


def checked_compose(text: str) -> dict[str, Any]:
    """Return a Compose file that the published schema accepts."""
    document: dict[str, Any] = yaml.safe_load(text)
    jsonschema.validate(document, COMPOSE_SCHEMA)
    return document


def checked_objects(text: str) -> dict[tuple[str, str], Any]:
    """Return objects that Kubernetes accepts, by kind and name."""
    documents = list(yaml.safe_load_all(text))
    for each in documents:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}
