"""Finds models that other programs keep on this machine. Reads names and headers; writes nothing.

The layouts: the cache of huggingface_hub since 0.8 (``models--ORG--NAME/{blobs,refs,snapshots}``); LM Studio's
``models/PUBLISHER/MODEL/FILE.gguf`` (0.2 and 0.3); llama.cpp's own cache, flat files ``ORG_NAME_FILE.gguf`` beside
``manifest=ORG=NAME=TAG.json`` up to 2025, and that of huggingface_hub in later builds.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.digest import Digest
from llama_runner.core.errors import LlamaRunnerError, SourceError, UsageError
from llama_runner.library import ollama_store
from llama_runner.library.file_import import ForeignFile, ForeignModel, check_name
from llama_runner.library.foreign_programs import TOOLS
from llama_runner.sources.gguf_header import check_model
from llama_runner.sources.hub.file_names import group_variants
from llama_runner.sources.hub.hf_cache import cache_directory
from llama_runner.sources.hub.pins import RemoteFile
from llama_runner.sources.local import LocalSafetensors
from llama_runner.store.layout import safe_name, user_path
from llama_runner.store.model_digest import indexed_shards
from llama_runner.system.files import read_bounded, read_json
from llama_runner.system.platforms import HOME, IS_MACOS, IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from llama_runner.sources.hub.file_names import Variant

_CONFIG = "config.json"
_DEPTH = 3
_SHOWN = 8


def unknown_tool_error(tool: str) -> UsageError:
    """Return the error for a program of which no layout is known."""
    return UsageError(f"models of {tool!r} cannot be imported", hint=f"there are {', '.join(TOOLS)}")


def no_store_error(tool: str, tried: Sequence[Path]) -> SourceError:
    """Return the error for a program that keeps nothing here."""
    where = " and ".join(str(path) for path in tried)
    return SourceError(f"there are no models of {tool}: {where} is not a directory", hint="name it with --path DIR")


def no_such_model_error(tool: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that no model there has."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    names = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), names, 1, 0.6)
    hint = f"did you mean {names[close[0]]}?" if close else f"models import --from {tool} lists what is there"
    return UsageError(f"{tool} has no model called {name!r}", hint=hint)


def ambiguous_model_error(tool: str, name: str, fitting: Sequence[str]) -> UsageError:
    """Return the error for a name that fits several models there."""
    more = f" and {len(fitting) - _SHOWN} more" if len(fitting) > _SHOWN else ""
    return UsageError(f"{name!r} fits {', '.join(fitting[:_SHOWN])}{more} of {tool}", hint="give more of the name")


def find_foreign(tool: str, path: Path | None, environment: Mapping[str, str]) -> list[ForeignModel]:
    """Return the models that a program keeps in its usual directory, or in ``path``; raises as above."""
    if tool not in TOOLS:
        raise unknown_tool_error(tool)
    tried = [path] if path is not None else _directories(tool, environment)
    there = [directory for directory in dict.fromkeys(tried) if directory.is_dir()]
    if not there:
        raise no_store_error(tool, tried)
    found: dict[str, ForeignModel] = {}
    for directory in there:
        for model in _READERS[tool](directory):
            problem = model.problem or _name_problem(model.name)
            found.setdefault(model.name, model.replace(problem=problem))
    return list(found.values())


def _name_problem(name: str) -> str | None:
    if not name.isprintable():
        return "its name has control characters"
    try:
        check_name(name)
    except UsageError:
        return "a model cannot have this name here"
    return None


def missing_path_error(path: Path) -> SourceError:
    """Return the error for a path that does not exist; it may be a name that another program has."""
    hint = f"name a path, or a program: models import --from {'|'.join(TOOLS)} NAME"
    return SourceError(f"{path} does not exist", hint=hint)


def choose(tool: str, models: Sequence[ForeignModel], name: str) -> ForeignModel:
    """Return the model that a name means: a whole one, one without its tag, or a unique beginning."""
    wanted = name.lower()
    named = [(model.name.lower(), model) for model in models]
    for found in (
        [model for text, model in named if text == wanted],
        [model for text, model in named if text == f"{wanted}:latest"],
        [model for text, model in named if text.rpartition(":")[0] == wanted],
        [model for text, model in named if text.startswith(wanted)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise ambiguous_model_error(tool, name, [model.name for model in found])
    raise no_such_model_error(tool, name, [model.name for model in models])


def path_model(path: Path, name: str | None) -> ForeignModel:
    """Return the model at a path: a GGUF file with its other shards, or a directory of safetensors.

    Raises ``SourceError``.
    """
    if not os.path.lexists(path):
        raise missing_path_error(path)
    if not path.is_dir():
        _, files = check_model(path)
        listed = tuple(ForeignFile(file, stored_name(file.name)) for file in files)
        stem = re.sub(r"-00001-of-\d{5}$", "", path.stem) if len(files) > 1 else path.stem
        return ForeignModel(_printable(stem) if name is None else name, listed, path=str(files[0].absolute()))
    resolved = path.resolve()
    name = _printable(resolved.name) if name is None else name
    ggufs = sorted(resolved.glob("*.gguf"))
    if not (resolved / _CONFIG).is_file() and ggufs:
        models = list(_gguf_models(name, resolved, [file.name for file in ggufs], ""))
        if len(models) == 1:
            return models[0].replace(name=name)
        raise SourceError(f"{path} has {len(models)} models", hint="name one of its files")
    return _safetensors(name, resolved, "")


def stored_name(name: str) -> str:
    """Return the name of a GGUF file in the store; that of a shard keeps its number."""
    match = re.fullmatch(r"(.*?)(-\d{5}-of-\d{5})?\.gguf", name, re.IGNORECASE | re.DOTALL)
    base, shard = (match[1], match[2] or "") if match else (name, "")
    return f"{safe_name(base)}{shard}.gguf"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() and letter != "\\" else "_" for letter in text).lstrip(".-~")


def _directories(tool: str, environment: Mapping[str, str]) -> list[Path]:
    home = Path(environment.get(HOME) or os.path.expanduser("~"))  # noqa: PTH111 - no error without a home
    match tool:
        case "ollama":
            return ollama_store.default_directories(environment)
        case "huggingface":
            return [cache_directory(environment)]
        case "lm-studio":
            own = []
            with suppress(OSError, UnicodeDecodeError):
                text = read_bounded(home / ".lmstudio-home-pointer", 1 << 12).decode().strip()
                own = [user_path(text) / "models"]
            return [*own, home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"]
    usual = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    if IS_MACOS:
        usual = home / "Library" / "Caches"
    elif IS_WINDOWS:
        usual = Path(environment.get("LOCALAPPDATA") or home)
    own = [user_path(environment["LLAMA_CACHE"])] if environment.get("LLAMA_CACHE") else [usual / "llama.cpp"]
    return [*own, cache_directory(environment)]


def _listing(directory: Path, depth: int = _DEPTH, below: str = "") -> Iterator[str]:
    """Yield the names of files below a directory; links to files count, links to directories do not."""
    with suppress(OSError), os.scandir(directory / below) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    if depth > 1:
                        yield from _listing(directory, depth - 1, f"{below}{entry.name}/")
                elif entry.is_file():
                    yield f"{below}{entry.name}"


def _gguf_models(name: str, directory: Path, names: Iterable[str], origin: str) -> Iterator[ForeignModel]:
    """Yield the GGUF models among the files of one directory, with the projector beside them."""
    listed = []
    for file in names:
        with suppress(OSError):
            listed.append(RemoteFile(file, (directory / file).stat().st_size))
    variants = group_variants(listed)
    projectors = sorted(
        (each for each in variants if each.role == "projector"),
        key=lambda each: (each.quantization != "f16", each.name),
    )
    projector = _file(directory, projectors[0].files[0].name) if projectors else None
    models = [each for each in variants if each.role == "model"]
    labels = [each.label for each in models]
    for each in models:
        stem = each.name.rpartition("/")[2].removesuffix(".gguf")
        tag = each.label if each.label and labels.count(each.label) == 1 else stem
        files = tuple(_file(directory, file.name) for file in each.files)
        path = str(directory / each.name)
        problem = _problem(directory, each)
        yield ForeignModel(f"{name}:{tag}", files, "gguf", origin, path, projector, problem=problem)


def _problem(directory: Path, variant: Variant) -> str | None:
    if variant.missing:
        return f"{variant.missing[0]} is missing"
    try:
        check_model(directory / variant.name)
    except LlamaRunnerError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _file(directory: Path, name: str) -> ForeignFile:
    """Return a file; a blob of a Hub cache says its digest by its name."""
    path = directory / name
    with suppress(OSError):
        blob = Path(os.path.realpath(path, strict=True))
        if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
            return ForeignFile(path, stored_name(path.name), Digest(f"sha256:{blob.name}"))
    return ForeignFile(path, stored_name(path.name))


def _safetensors(name: str, directory: Path, origin: str) -> ForeignModel:
    every = LocalSafetensors(directory, name).files()
    files = {file: path for file, path in every.items() if not any(part.startswith(".") for part in file.split("/"))}
    listed = tuple(ForeignFile(path, file) for file, path in files.items())
    missing = sorted((indexed_shards(files) or frozenset()) - files.keys())
    problem = f"{missing[0]} is missing" if missing else None
    if not any(file.endswith(".safetensors") for file in files) or _CONFIG not in files:
        problem = "it has neither a GGUF file nor safetensors with their configuration"
    return ForeignModel(name, listed, "safetensors", origin, str(directory), problem=problem)


def _hub_cache(cache: Path, origin: str = "huggingface", *, weights: bool = True) -> Iterator[ForeignModel]:
    """Yield the models of a cache of huggingface_hub, each repository at the commit that ``main`` means there."""
    for repository in sorted(cache.glob("models--*")):
        name = repository.name.removeprefix("models--").replace("--", "/", 1)
        if (snapshot := _snapshot(repository)) is None:
            continue
        names = list(_listing(snapshot))
        yield from _gguf_models(name, snapshot, (each for each in names if each.lower().endswith(".gguf")), origin)
        if weights and _CONFIG in names and any(each.endswith(".safetensors") for each in names):
            try:
                yield _safetensors(name, snapshot, origin)
            except LlamaRunnerError as error:
                yield ForeignModel(name, (), "safetensors", origin, str(snapshot), problem=str(error))


def _snapshot(repository: Path) -> Path | None:
    """Return the directory of the commit that ``main`` means, or else of the newest one."""
    with suppress(OSError, UnicodeDecodeError):
        commit = read_bounded(repository / "refs" / "main", 1 << 10).decode().strip()
        if re.fullmatch(r"[0-9a-f]{7,64}", commit) and (repository / "snapshots" / commit).is_dir():
            return repository / "snapshots" / commit
    there = [path for path in (repository / "snapshots").glob("*") if path.is_dir()]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)


def _lm_studio(directory: Path) -> Iterator[ForeignModel]:
    for model in sorted(directory.glob("*/*")):
        if model.is_dir():
            names = [name for name in _listing(model, 1) if name.lower().endswith(".gguf")]
            yield from _gguf_models(f"{model.parent.name}/{model.name}", model, names, "lm-studio")


def _llama_cpp(directory: Path) -> Iterator[ForeignModel]:
    names = [name for name in _listing(directory, 1) if name.lower().endswith(".gguf")]
    by_repository: dict[str, list[str]] = {}
    for name in names:
        by_repository.setdefault(_repository(directory, name) or "", []).append(name)
    for repository, files in by_repository.items():
        if repository:
            prefix = f":{repository.replace('/', '_')}_"  # of a name without a quantization
            for model in _gguf_models(repository, directory, files, "llama.cpp"):
                yield model.replace(name=model.name.replace(prefix, ":", 1))
        else:
            for model in _gguf_models("", directory, files, "llama.cpp"):
                yield model.replace(name=Path(model.path).stem)
    yield from _hub_cache(directory, "llama.cpp", weights=False)


def _repository(directory: Path, name: str) -> str | None:
    """Return the repository of a file in the flat cache: from a manifest, or from the URL that was noted beside it."""
    for manifest in directory.glob("manifest=*=*=*.json"):
        _, organisation, model, _ = manifest.name.split("=", 3)
        if name.startswith(f"{organisation}_{model}_"):
            return f"{organisation}/{model}"
    with suppress(OSError, ValueError, LookupError, TypeError):
        match = re.match(
            r"https?://[^/]+/([^/]+/[^/]+)/resolve/", read_json(directory / f"{name}.json", 1 << 20)["url"]
        )
        return match and match[1]
    return None


_READERS: dict[str, Callable[[Path], Iterator[ForeignModel]]] = {
    "ollama": ollama_store.find_models,
    "huggingface": _hub_cache,
    "lm-studio": _lm_studio,
    "llama.cpp": _llama_cpp,
}
