"""Turns what the user named into one source, or into a name on the Hub."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import SourceError, UsageError
from llama_runner.sources.gguf_header import check_model
from llama_runner.sources.local import LocalGguf, LocalSafetensors, open_directory
from llama_runner.store.layout import user_path
from llama_runner.store.local_sources import missing_source_error, printable_file_name, unreadable_source_error

if TYPE_CHECKING:
    from llama_runner.sources.hub.parse_model_name import HubName
    from llama_runner.store.artifacts import Store


_ADAPTER_SETTINGS = "adapter_config.json"


def no_source_error() -> UsageError:
    """Return the error for a command without a model."""
    return UsageError(
        "no model given",
        hint="name one: a .gguf file, a directory of safetensors, or --demo for the model that comes along",
    )


def several_sources_error(named: list[str]) -> UsageError:
    """Return the error for more than one model."""
    return UsageError(f"{len(named)} models given: {', '.join(named)}", hint="give one")


def adapter_only_error(path: Path, base: str | None) -> SourceError:
    """Return the error for a LoRA adapter that is named as the model. ``base`` is the base model that it names."""
    return SourceError(
        f"{path} is a LoRA adapter" + (f" of {base}" if base else ", and names no base model"),
        hint=f"run {base or 'MODEL'} --lora {path}",
    )


class NotAModel(SourceError):
    """The name is neither an existing path nor a possible name on the Hub."""

    def __init__(self, name: str, nearest: str | None = None) -> None:
        self.name = name
        words = " ".join(re.findall(r"[\w.-]+", name))
        hint = f"check the path, or name a model as ORG/MODEL; `llama-runner search {words or 'WORDS'}` finds names"
        super().__init__(
            f"{name} is not a file or directory here, and not the name of a model on the Hugging Face Hub",
            hint=hint if nearest is None else f"did you mean {nearest}, which was imported?",
        )


def open_source(
    model: str | Path | None = None,
    *,
    hf_model: str | None = None,
    gguf_path: str | Path | None = None,
    safetensors_dir: str | Path | None = None,
    demo: bool = False,
) -> LocalSafetensors | LocalGguf | HubName:
    """Return the local source, or the name to look up on the Hub.

    Raises ``UsageError`` if none or several are given, ``SourceError`` if the given one is not usable.

    ``model`` is taken for a GGUF file if it is a file or ends in ``.gguf``, for a directory if it is one or is written
    like a path, else for a name on the Hub.
    """
    named = {
        "MODEL": model,
        "--hf-model": hf_model,
        "--gguf-path": gguf_path,
        "--safetensors-dir": safetensors_dir,
        "--demo": demo or None,
    }
    given = [
        f"{option} {value}" if value is not True else option for option, value in named.items() if value is not None
    ]
    if not given or model == "":
        raise no_source_error()
    if len(given) > 1:
        raise several_sources_error(given)
    try:
        return _demo() if demo else _open(model, hf_model, gguf_path, safetensors_dir)
    except OSError as error:  # a directory that may not be entered, a name too long for the file system
        named_path = model or gguf_path or safetensors_dir
        raise unreadable_source_error(error.filename or str(named_path), error.strerror or str(error)) from error


def open_named(
    store: Store, name: str, *, exact: bool = False, remember: bool = False
) -> LocalSafetensors | LocalGguf | None:
    """Return the source in the store that was imported under a name; None if there is none, or if a path has the name.

    ``exact`` and ``remember`` are those of ``find_named``. Raises as ``find_named`` and ``open_gguf``.
    """
    from llama_runner.store.name_index import find_named, find_projector  # noqa: PLC0415 - most models have a source elsewhere

    with suppress(OSError, ValueError):  # no path can have the name
        if user_path(name).exists():
            return None
    if (found := find_named(store, name, exact=exact, remember=remember)) is None:
        return None
    model, path = found
    if not model.file:
        return open_directory(path).replace(name=printable_file_name(model.name.rpartition("/")[2]))
    return open_gguf(path).replace(given_name=model.alias, projector=find_projector(store, model))


def _demo() -> LocalSafetensors:
    from llama_runner.demo import MODEL_DIRECTORY  # noqa: PLC0415 - only when asked for

    return LocalSafetensors(MODEL_DIRECTORY, "demo")


def _open(
    model: str | Path | None, hf_model: str | None, gguf_path: str | Path | None, safetensors_dir: str | Path | None
) -> LocalSafetensors | LocalGguf | HubName:
    if gguf_path is not None:
        return open_gguf(Path(gguf_path))
    if safetensors_dir is not None:
        return _open_model(Path(safetensors_dir))
    if hf_model is not None:
        return _hub_name(hf_model)
    assert model is not None
    if "://" in str(model):
        return _hub_name(str(model))
    path = user_path(model)
    if path.is_dir():
        return _open_model(path)
    if path.is_file() or path.suffix.lower() == ".gguf":
        return open_gguf(path)
    if path.exists():
        raise SourceError(
            f"{path} is neither a file nor a directory", hint="name a GGUF file or a directory of safetensors"
        )
    if str(model).startswith(("/", "./", "../", "~")) or str(model) in (".", ".."):
        raise missing_source_error(path.absolute())
    return _hub_name(str(model), bare=True)


def _open_model(path: Path) -> LocalSafetensors:
    """Return the source of a model directory; raises ``SourceError`` if it holds only an adapter."""
    model = open_directory(path)
    if not (model.path / "config.json").is_file() and (settings := model.path / _ADAPTER_SETTINGS).is_file():
        from llama_runner.system.files import read_json  # noqa: PLC0415 - only for an adapter

        try:
            base = read_json(settings)["base_model_name_or_path"]
        except (OSError, ValueError, LookupError, TypeError):
            base = None
        raise adapter_only_error(path, base if isinstance(base, str) and base else None)
    return model


def check_not_adapter(source: object) -> None:
    """Raise a ``SourceError`` for a GGUF file that holds a LoRA adapter, which cannot be served alone."""
    if isinstance(source, LocalGguf) and source.header.metadata.get("general.type") == "adapter":
        base = source.header.text("general.base_model.0.repo_url") or source.header.text("general.base_model.0.name")
        raise adapter_only_error(source.path, base and base.removeprefix("https://huggingface.co/"))


def _hub_name(text: str, *, bare: bool = False) -> HubName:
    """Parse a name on the Hub; a ``bare`` one (without an option or a scheme) needs an organisation."""
    from llama_runner.sources.hub import parse_model_name  # noqa: PLC0415 - not for what lies here

    if bare and not parse_model_name.looks_like_hub_name(text):
        raise NotAModel(text)
    return parse_model_name.parse(text, endpoint=os.environ.get("HF_ENDPOINT"))


def open_gguf(path: Path) -> LocalGguf:
    """Return the source of a GGUF file; raises ``SourceError``."""
    path = user_path(path).absolute()
    if not path.exists():
        raise missing_source_error(path)
    header, files = check_model(path)
    return LocalGguf(files[0], tuple(files), header)
