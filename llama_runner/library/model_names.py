"""Finds the models of the store by name: what ``run`` takes, an alias, or a unique beginning."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.library.list_models import quantization_of, role_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llama_runner.library.list_models import Model
    from llama_runner.store.contents_of_root import Artifact

_SHOWN = 8


class Selection(Value):
    """The models of one source that a name means, the newest first, and which of their files."""

    models: tuple[Model, ...]
    quantization: str | None = None
    """The part after the colon."""

    @property
    def artifacts(self) -> list[Artifact]:
        """The selected artifacts: all of the models, or the files of one quantization."""
        every = [artifact for model in self.models for artifact in model.artifacts]
        if self.quantization is None:
            return every
        return [each for each in every if role_of(each) == "model" and _is_of(each, self.quantization)]


class NoSuchModel(UsageError):
    """No model of the store has this name."""


def no_such_model_error(name: str, known: Iterable[str]) -> NoSuchModel:
    """Return the error for a name that no model of the store has, with the nearest name."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    names = {each.lower(): each for each in known}
    parts = {each.rpartition("/")[2]: full for each, full in names.items()}
    close = get_close_matches(name.lower(), [*names, *parts], 1, 0.6)
    close = close or [each for each in (*names, *parts) if name and each.startswith(name.lower())]
    hint = "llama-runner models list shows what is there"
    if close:
        hint = f"did you mean {names.get(close[0]) or parts[close[0]]}?"
    return NoSuchModel(f"no model of the store is called {name!r}", hint=hint)


def ambiguous_model_error(name: str, fitting: Sequence[str], *, same: bool = False) -> UsageError:
    """Several models have names that fit; ``same``: some have one name, and their paths are given."""
    more = f" and {len(fitting) - _SHOWN} more" if len(fitting) > _SHOWN else ""
    hint = "name one by its path" if same else "give more of the name"
    return UsageError(f"{name!r} fits {', '.join(fitting[:_SHOWN])}{more}", hint=hint)


def no_such_revision_error(name: str, revision: str, there: Sequence[str]) -> UsageError:
    """The model is there, at other revisions."""
    return UsageError(f"{name} is not here at revision {revision!r}", hint=f"there are {', '.join(there)}")


def no_such_quantization_error(name: str, quantization: str, there: Sequence[str]) -> UsageError:
    """The model is there, in other quantizations."""
    what = f"there are {', '.join(there)}" if there else "none is here"
    return UsageError(f"{name} is not here as {quantization!r}", hint=what)


def select(models: Sequence[Model], name: str, *, beginnings: bool = True) -> Selection:
    """Return what a name means; ``UsageError`` where it means nothing, or models of several sources.

    Without ``beginnings`` the beginning of a name does not stand for it.
    """
    if not name or "\0" in name:
        raise no_such_model_error(name, [])
    base, revision, quantization = name, None, None
    fitting = _fitting(models, base, beginnings=beginnings)
    if not fitting and (match := re.fullmatch(r"(.+?)(?:@([^:@]*))?(?::([^:/@]*))?", _plain(name), re.DOTALL)):
        base, revision, quantization = match[1], match[2] or None, match[3] or None
        fitting = _fitting(models, base, beginnings=beginnings)
    if not fitting:
        raise no_such_model_error(name, (model.name for model in models))
    sources = {(model.name, model.source): model for model in fitting}
    if len(sources) > 1:
        same = len({name for name, _ in sources}) < len(sources)
        fit = sorted(source if same else name for name, source in sources)
        raise ambiguous_model_error(name, fit, same=same)
    found = sorted(fitting, key=lambda model: model.made, reverse=True)
    if revision is not None:
        there = [model.revision[:12] for model in found]
        found = [model for model in found if model.revision.startswith(revision)]
        if not found:
            raise no_such_revision_error(base, revision, there)
    selection = Selection(tuple(found), None if quantization is None else quantization.lower())
    if quantization is not None and not selection.artifacts:
        raise no_such_quantization_error(base, quantization, found[0].quantizations)
    return selection


def one_file(selection: Selection, name: str) -> tuple[Model, Artifact]:
    """Return the one model file that a name means; ``UsageError`` where it is none or several.

    Files that are here come before those of which only a record is left.
    """
    model = selection.models[0]
    found = [each for each in model.artifacts if each in selection.artifacts and role_of(each) == "model"]
    found = [each for each in found if each.bytes is not None] or found
    if not found:
        raise no_such_quantization_error(name, "a GGUF model", ())
    if len(found) > 1:
        base = f"{model.name}:"
        raise ambiguous_model_error(name, [base + each.path.rpartition("/")[2] for each in found])
    return model, found[0]


def _plain(name: str) -> str:
    """Return a name without the address of the Hub before it."""
    return re.sub(r"^(?:hf://|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)", "", name)


def _fitting(models: Sequence[Model], name: str, *, beginnings: bool) -> list[Model]:
    """Return the models of exactly this name, of this path, or else those whose names begin so."""
    wanted = name.lower()
    whole = [model for model in models if wanted in {each.lower() for each in _names(model)}]
    if not whole and os.path.exists(name):  # noqa: PTH110 - may be no path
        path = os.path.realpath(name)
        whole = [model for model in models if os.path.realpath(model.source) == path]
    if whole or not beginnings:
        return whole
    return [model for model in models if any(each.lower().startswith(wanted) for each in _names(model))]


def _names(model: Model) -> set[str]:
    """Return what a model is called: its name, its source, the model without the organisation, its directory."""
    bucket = model.directories[0].split("/")[2] if model.directories else model.name
    return {model.name, model.source, model.name.rpartition("/")[2], bucket, model.title}


def _is_of(artifact: Artifact, quantization: str) -> bool:
    name = artifact.path.rpartition("/")[2].lower()
    return quantization in (quantization_of(artifact), name, name.removesuffix(".gguf"))
