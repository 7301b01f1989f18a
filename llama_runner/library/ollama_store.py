"""Reads Ollama's store: manifests that name layers, and blobs that are called after their SHA-256.

The layout is that of Ollama 0.1.14 to 0.12: ``manifests/HOST/NAMESPACE/MODEL/TAG`` is an OCI manifest whose layers are
``blobs/sha256-HEX``. Nothing is written there.
"""

from __future__ import annotations

import json
import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest
from llama_runner.library.file_import import ForeignFile, ForeignModel
from llama_runner.system.files import read_bounded, read_head, read_json
from llama_runner.system.platforms import HOME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ORIGIN = "ollama"
_LAYER = "application/vnd.ollama.image."
_HOST, _NAMESPACE = "registry.ollama.ai", "library"
_LARGEST_MANIFEST, _LARGEST_TEXT = 4 << 20, 1 << 16
_DEPTH = 4
"""Host, namespace, model and tag."""
_FLAGS = {
    "temperature": "--temp",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "min_p": "--min-p",
    "typical_p": "--typical",
    "repeat_penalty": "--repeat-penalty",
    "repeat_last_n": "--repeat-last-n",
    "presence_penalty": "--presence-penalty",
    "frequency_penalty": "--frequency-penalty",
    "num_predict": "--predict",
    "seed": "--seed",
}
"""Options of llama-server with the meaning of Ollama's parameters."""


def default_directories(environment: Mapping[str, str]) -> list[Path]:
    """Return where Ollama keeps models: of this user, and of the service on Linux."""
    if chosen := environment.get("OLLAMA_MODELS"):
        return [Path(chosen)]
    home = Path(environment.get(HOME) or os.path.expanduser("~"))  # noqa: PTH111 - no error without a home
    return [home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]  # fmt: skip


def find_models(directory: Path) -> Iterator[ForeignModel]:
    """Yield the models of a store, sorted by name; one that cannot be imported has a problem."""
    manifests = directory / "manifests"
    found = [_model(directory, path, path.relative_to(manifests).parts) for path in _files(manifests, _DEPTH)]
    yield from sorted(found, key=lambda model: model.name)


def launch_words(settings: Mapping[str, Any]) -> list[str]:
    """Return the options of ``run`` that have the meaning of Ollama's parameters, as far as there are any."""
    parameters = settings.get("parameters")
    if not isinstance(parameters, dict):
        return []
    context = ["--ctx-size", parameters["num_ctx"]] if str(parameters.get("num_ctx", "")).isdigit() else []
    sampling = [word for name, flag in _FLAGS.items() if name in parameters for word in (flag, str(parameters[name]))]
    return [*map(str, context), *(["--", *sampling] if sampling else [])]


def _files(directory: Path, depth: int) -> Iterator[Path]:
    """Yield the files exactly so deep below a directory; links are not followed."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if depth > 1 and entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), depth - 1)
            elif depth == 1 and entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                yield Path(entry.path)


def _name(parts: tuple[str, ...]) -> str:
    """Return the name as Ollama prints it: without its own host and without ``library``."""
    host, namespace, model, tag = parts
    if host == _HOST:
        return f"{model}:{tag}" if namespace == _NAMESPACE else f"{namespace}/{model}:{tag}"
    return f"{host}/{namespace}/{model}:{tag}"


def _model(directory: Path, manifest: Path, parts: tuple[str, ...]) -> ForeignModel:
    name = _name(parts)
    try:
        layers = [(layer["mediaType"], layer["digest"]) for layer in read_json(manifest, _LARGEST_MANIFEST)["layers"]]
        by_kind: dict[str, list[Digest]] = {}
        for media, digest in layers:
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                raise ValueError(f"{digest!r} is no digest")
            by_kind.setdefault(str(media).removeprefix(_LAYER), []).append(Digest(digest))
    except OSError as error:
        return ForeignModel(name, (), origin=ORIGIN, path=str(manifest), problem=error.strerror or str(error))
    except (ValueError, LookupError, TypeError) as error:
        return ForeignModel(name, (), origin=ORIGIN, path=str(manifest), problem=f"its manifest is damaged: {error}")
    weights, projectors = by_kind.get("model", []), by_kind.get("projector", [])
    files = tuple(ForeignFile(_blob(directory, digest), "model.gguf", digest) for digest in weights[:1])
    projector = ForeignFile(_blob(directory, projectors[0]), "mmproj.gguf", projectors[0]) if projectors else None
    problem = None
    if len(weights) != 1 or len(projectors) > 1:
        problem = "it has no GGUF file" if not weights else "it has several files"
    elif "adapter" in by_kind:
        problem = "it is a model with an adapter"
    else:
        problem = next(filter(None, (_problem(file.path) for file in (*files, *filter(None, [projector])))), None)
    settings = _settings(directory, by_kind)
    return ForeignModel(name, files, "gguf", ORIGIN, str(manifest), projector, settings, problem)


def _blob(directory: Path, digest: str) -> Path:
    return directory / "blobs" / digest.replace(":", "-")


def _problem(path: Path) -> str | None:
    try:
        return None if read_head(path, 4) == b"GGUF" else f"{path.name} is not a GGUF file"
    except OSError as error:
        return f"{path.name}: {error.strerror or error}"


def _settings(directory: Path, by_kind: Mapping[str, list[Digest]]) -> dict[str, Any]:
    """Return the system prompt, the template and the parameters; those that cannot be read are left out."""
    found: dict[str, Any] = {}
    for kind in ("system", "template", "params"):
        with suppress(OSError, ValueError):
            for digest in by_kind.get(kind, [])[:1]:
                text = read_bounded(_blob(directory, digest), _LARGEST_TEXT).decode()
                if kind != "params":
                    found[kind] = text
                elif parameters := _parameters(json.loads(text)):
                    found["parameters"] = parameters
    return found


def _parameters(value: object) -> dict[str, Any]:
    """Return numbers, texts and lists of texts; a float as text, as records have none."""
    found: dict[str, Any] = {}
    for name, given in value.items() if isinstance(value, dict) else ():
        is_list = isinstance(given, list) and all(isinstance(each, str) for each in given)
        if isinstance(given, float):
            if math.isfinite(given):
                found[name] = f"{given:g}"
        elif is_list or isinstance(given, (bool, int, str)):
            found[name] = given
    return found
