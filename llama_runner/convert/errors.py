"""Errors of a model directory, one class or function per cause.

All have the exit status of an unusable source. Errors of writing (a full disk) are not here: they reach the caller as
``OSError``.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import ExitCode, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHOWN = 200
"""Characters of a foreign value that an error shows."""
MENTIONED = 5  # names listed in an error before "and N more"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    text = ", ".join(listed[:MENTIONED])
    return text if len(listed) <= MENTIONED else f"{text} and {len(listed) - MENTIONED} more"


def shown(value: object) -> str:
    """Return a value as Python writes it, shortened."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of too many digits
        return f"a {type(value).__name__}"
    return _short(text)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def no_such_directory_error(path: Path) -> SourceError:
    """Return the error for a model directory that is not a directory."""
    return SourceError(f"model directory not found: {path}", hint="give the directory that holds config.json")


class MissingFile(SourceError):
    """A required file of the checkpoint is missing."""

    def __init__(self, path: Path, *, purpose: str, hint: str | None = None) -> None:
        super().__init__(
            f"{path.name} is missing, needed for {purpose}: {path}",
            hint=hint or "fetch the model again with all its files",
        )
        self.path = path
        self.purpose = purpose


def no_preprocessor_error(path: Path) -> MissingFile:
    """Return the error for a vision model that does not say how images are prepared."""
    hint = "fetch it from the original repository, or leave --mmproj out"
    return MissingFile(path, purpose="the projector", hint=hint)


class UnreadableFile(SourceError):
    """A file of the checkpoint has invalid contents, or cannot be read."""

    def __init__(self, path: Path, problem: str, *, hint: str = "fetch the file again") -> None:
        super().__init__(f"{path.name} cannot be read: {problem}: {path}", hint=hint)
        self.path = path
        self.problem = problem


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert ``OSError`` to `UnreadableFile` while ``path``, or files in it, are read."""
    try:
        yield
    except OSError as error:
        found = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else path
        why = error.strerror or str(error)
        raise UnreadableFile(found, why, hint="make it readable for this user, or fetch the model again") from error


def no_tokenizer_error(path: Path) -> SourceError:
    """Return the error for a model without a tokenizer."""
    return SourceError(f"no tokenizer in {path}", hint=f'save it there: tokenizer.save_pretrained("{path}")')


def own_code_error(name: str) -> SourceError:
    """Return the error for a model whose tokenizer is Python code of its own."""
    return SourceError(
        "the model cannot be converted without running its own Python code, which is not trusted: its tokenizer is "
        f"{shown(name)}",
        hint="read its *.py files, and if you trust them, pass --trust-remote-code",
    )


def only_pickles_error(names: Iterable[str]) -> SourceError:
    """Return the error for weights as pickles, which can run code when they are loaded."""
    names = tuple(names)
    return SourceError(
        f"the weights are Python pickles, which are never loaded: {_some(names)}",
        hint="convert them to safetensors where you trust them (safetensors.torch.save_file), "
        "or use a repository that has model.safetensors",
    )


def no_weights_error(path: Path) -> SourceError:
    """Return the error for a directory without weights."""
    return SourceError(f"no weights found (model*.safetensors) in {path}", hint="fetch the model's safetensors files")


def absent_shard_error(path: Path, shards: Iterable[str]) -> SourceError:
    """Return the error for shards that the index names and that are missing."""
    shards = tuple(shards)
    return SourceError(f"{path.name} names shards that are missing: {_some(shards)}", hint="fetch them")


def index_mismatch_error(path: Path, *, missing: Iterable[str], extra: Iterable[str]) -> SourceError:
    """Return the error for an index that disagrees with the shards."""
    missing = tuple(missing)
    extra = tuple(extra)
    facts = [f"named but in no shard: {_some(missing)}"] if missing else []
    facts += [f"in a shard but not named: {_some(extra)}"] if extra else []
    return SourceError(
        f"{path.name} and the shards disagree; tensors {'; '.join(facts)}",
        hint="index and shards are from different versions; fetch all of them again",
    )


def duplicate_tensor_error(name: str, shards: tuple[str, str]) -> SourceError:
    """Return the error for a tensor in two shards."""
    return SourceError(
        f"tensor {name} is in two shards: {shards[0]} and {shards[1]}",
        hint="remove the shard that belongs to another version of the model",
    )


class BrokenShard(SourceError):
    """A safetensors file is malformed.

    ``reference`` is what the safetensors library says of it: None where it was not asked, empty where it reads it.
    """

    def __init__(self, path: Path, problem: str, *, reference: str | None = None) -> None:
        said = f" (the safetensors library: {reference})" if reference else ""
        hint = "fetch the file again"
        if reference == "":
            hint = "the safetensors library reads it; if you trust it, load it and save it again with that library"
        super().__init__(f"{path.name} is not a valid safetensors file: {problem}{said}: {path}", hint=hint)
        self.path, self.problem, self.reference = path, problem, reference


class SourceChanged(SourceError):
    """A source file changed during the conversion."""

    code = ExitCode.STEP  # the source was sound when the step began

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path.name} changed while it was read: {path}", hint="run again when nothing writes to it")
        self.path = path


def unsupported_architecture_error(architecture: str, supported: Iterable[str]) -> SourceError:
    """Return the error for an architecture without a family."""
    supported = tuple(supported)
    return SourceError(
        f"unsupported architecture: {architecture}",
        hint=f"supported: {', '.join(supported)}; or use a GGUF that its makers publish",
    )


def unsupported_projector_error(architecture: str, supported: Iterable[str]) -> SourceError:
    """Return the error for a model whose projector is not converted natively."""
    return SourceError(
        f"no projector is converted here for {architecture} with this config.json",
        hint=f"supported: {', '.join(supported)}; llama.cpp's own script knows others: --converter official",
    )


def no_vision_tensors_error(directory: Path) -> SourceError:
    """Return the error for a vision model whose weights are those of the text part alone."""
    return SourceError(
        f"the weights have no vision part, which the projector is made of: {directory}",
        hint="make the projector of the original model, or leave --mmproj out",
    )


class UnsupportedOption(SourceError):
    """An option of the checkpoint cannot be converted faithfully."""

    def __init__(self, option: str, value: object, *, hint: str | None = None) -> None:
        super().__init__(
            f"unsupported: {option} is {shown(value)}",
            hint=hint or "llama.cpp's own script may know it: --converter official",
        )
        self.option = option
        self.value = value


class AlreadyQuantized(SourceError):
    """The checkpoint's weights are quantized already, in a way that is not undone here (AWQ, bitsandbytes, …).

    ``official`` says whether llama.cpp's own script converts it, ``originals`` the models that its card names.
    """

    def __init__(self, method: str, *, official: bool = False, originals: Iterable[str] = ()) -> None:
        self.method = method
        self.official = official
        self.originals = tuple(originals)
        original = f"the original checkpoint ({_some(self.originals)})" if self.originals else "the original checkpoint"
        way = f"convert {original}, which is not quantized, and choose a quantization of your own"
        super().__init__(
            f"the checkpoint is already quantized: {method}",
            hint=f"llama.cpp's own script converts it; or {way}" if official else way,
        )


class BrokenQuantization(SourceError):
    """The parts of a quantized tensor do not match."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(
            f"tensor {name} {problem}",
            hint="config.json and the weights belong to different models or versions; fetch all files again",
        )
        self.name = name
        self.problem = problem


def undeclared_quantization_error(name: str, dtype: str) -> SourceError:
    """Return the error for quantized weights that config.json does not declare."""
    return SourceError(
        f"the weights are quantized, and config.json has no quantization_config: {name} is stored as {dtype}",
        hint="fetch config.json again, or convert the original checkpoint, which is not quantized",
    )


class BadHyperparameter(SourceError):
    """A value of config.json is missing or invalid."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(
            f"config.json: {_short(name)} {_short(problem)}",
            hint="fetch config.json again; it is the model maker's file",
        )
        self.name = name
        self.problem = problem


def unexpected_structure_error(problem: str) -> SourceError:
    """Return the error for a value of an unexpected type in config.json."""
    return SourceError(
        f"config.json has an unexpected structure ({_short(problem)})",
        hint="fetch config.json again; it is the model maker's file",
    )


def wrong_shape_error(name: str, *, found: tuple[int, ...], expected: tuple[int, ...]) -> SourceError:
    """Return the error for a tensor whose shape differs from config.json."""
    return SourceError(
        f"tensor {name} has shape {list(found)}, config.json implies {list(expected)}",
        hint="config.json and the weights belong to different models or versions",
    )


def missing_tensors_error(names: Iterable[str]) -> SourceError:
    """Return the error for required tensors that no shard has."""
    names = tuple(names)
    return SourceError(f"tensors are missing: {_some(names)}", hint="fetch all the model's shards")


def unknown_tensors_error(names: Iterable[str], family: str) -> SourceError:
    """Return the error for tensors without a rule; leaving them out would change the model."""
    names = tuple(names)
    return SourceError(
        f"tensors that the {family} family does not know: {_some(names)}",
        hint="the checkpoint is not what its config.json says, or carries an adapter; merge or remove it",
    )


def unsupported_dtype_error(name: str, dtype: str) -> SourceError:
    """Return the error for a tensor type that cannot be converted faithfully."""
    return SourceError(
        f"tensor {name} is stored as {dtype}, not as F64, F32, F16 or BF16",
        hint="use the original checkpoint, not a quantized one",
    )


NO_WAY = "llama.cpp has no such tokenizer, and its own script does not convert it either"


class UnknownPreTokenizer(SourceError):
    """tokenizer.json splits text in a way that no known name stands for.

    ``nearest`` is the name of a similar way, empty if there cannot be a right one.
    """

    def __init__(self, found: str, nearest: str) -> None:
        hint = (
            f"the nearest known one is {nearest}; if llama.cpp splits text so, --pre-tokenizer {nearest} says it, "
            "and a wrong one makes the model answer worse in silence"
        )
        super().__init__(f"unknown BPE pre-tokenizer: {found}", hint=hint if nearest else NO_WAY)
        self.found = found
        self.nearest = nearest


class NoSuchPreTokenizer(SourceError):
    """llama.cpp has no pre-tokenizer of the given name."""

    code = ExitCode.USAGE

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        from difflib import get_close_matches  # noqa: PLC0415 - not on the warm path

        near = get_close_matches(name, self.known, n=1, cutoff=0)
        super().__init__(
            f"llama.cpp knows no pre-tokenizer of that name: {name}",
            hint=f"the nearest is {', '.join(near)}; all: {', '.join(self.known)}",
        )


class BadVocabulary(SourceError):
    """The tokenizer's files contradict each other or the weights."""

    def __init__(self, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"tokenizer: {problem}", hint=hint or "fetch the tokenizer's files again")
        self.problem = problem


class TooManyTokens(BadVocabulary):
    """The tokenizer has more tokens than the embedding has rows."""

    def __init__(self, tokens: int, room: int) -> None:
        super().__init__(
            f"it has {tokens} tokens, the embedding has room for {room}",
            hint="tokens were added without resizing the model, or the tokenizer is another model's",
        )
        self.tokens = tokens
        self.room = room
