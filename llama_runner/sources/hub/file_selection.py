"""Selects the files of a repository. Pure: the same listing gives the same selection.

An exact criterion that no file meets is an error that lists the files. Files that fit equally are an error too, unless
they have the same bytes.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from llama_runner.core.errors import SourceError
from llama_runner.core.files_of_model_directory import READ_BY_CONVERSION
from llama_runner.core.immutable_values import Value
from llama_runner.core.sizes import size_text
from llama_runner.sources.hub import file_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llama_runner.sources.hub.file_names import Variant
    from llama_runner.sources.hub.pins import RemoteFile

NEAREST = (
    *("q4_k_m", "q4_k_l", "q4_k_xl", "mxfp4_moe", "q4_k_s", "iq4_nl", "iq4_nl_xl", "iq4_xs", "q4_1", "q4_0", "nvfp4"),
    *("q4", "q5_k_m", "q5_k_l", "q5_k_xl", "q5_k_s", "q5_1", "q5_0", "q5"),
    *("q6_k", "q6_k_l", "q6_k_xl", "q6", "q8_0", "q8_0_l", "q8_k_xl", "q8"),
    *("q3_k_xl", "q3_k_l", "q3_k_m", "iq3_m", "iq3_s", "q3_k_s", "iq3_xs", "iq3_xxs", "q3"),
    *("bf16", "f16", "f32"),
    *("q2_k_xl", "q2_k_l", "q2_k", "iq2_m", "iq2_s", "q2_k_s", "iq2_xs", "iq2_xxs", "q2"),
    *("tq2_0", "q2_0", "iq1_m", "iq1_s", "tq1_0", "q1_0"),
    *file_names.FOREIGN,
)
"""Order of the default selection: q4_k_m and similar types, then larger ones up to 8 bits, then 3 bits, then 16 bits,
then 2 bits and fewer. Last are types that llama.cpp cannot load."""

PROJECTORS = ("f16", "bf16", "q8_0", "f32")
"""Order of the projector's types: projectors are small, and most are tested with f16."""

_OTHER_PROGRAMS = ("original/", "onnx/", "openvino/")
"""Folders with the same model for other programs; each has its own config.json."""

_NO_MODEL = {"projector": "a projector", "imatrix": "an importance matrix"}


class FileCriteria(Value):
    """Criteria of the user for the files."""

    quantization: str | None = None
    filename: str | None = None
    """A file, any shard of one, or a folder."""
    pattern: str | None = None
    max_size: int | None = None
    """Maximum bytes of model and projector together."""
    projector: bool = True


class FileSelection(Value):
    """Selected model and projector."""

    model: Variant
    projector: RemoteFile | None
    why: str
    """Reason of the selection, as a clause for a message."""


class NoSuchQuantization(SourceError):
    """No GGUF file has the requested quantization."""

    def __init__(self, quantization: str, offered: Sequence[Variant], *, in_pieces: str | None = None) -> None:
        self.quantization, self.offered, self.in_pieces = quantization, tuple(offered), in_pieces
        super().__init__(
            _with_table(f"no GGUF file there is {quantization}", offered),
            hint=_ask(offered)
            if in_pieces is None
            else f"it is there in pieces ({in_pieces}, …), which must be joined by hand; or choose one of these",
        )


class NoSuchFile(SourceError):
    """No GGUF file has the requested name."""

    def __init__(self, name: str, offered: Sequence[Variant]) -> None:
        self.name, self.offered = name, tuple(offered)
        super().__init__(_with_table(f"no GGUF file there is called {name}", offered), hint=_ask(offered))


def not_the_model_error(name: str, what: str, offered: Sequence[Variant]) -> SourceError:
    """Return the error for a requested file that accompanies a model."""
    offered = tuple(offered)
    return SourceError(_with_table(f"{name} is {what}", offered), hint=_ask(offered))


class AmbiguousFile(SourceError):
    """Several files meet the criteria equally."""

    def __init__(self, fitting: Sequence[Variant]) -> None:
        self.fitting = tuple(fitting)
        super().__init__(
            f"{len(fitting)} models there fit equally\n{table(fitting)}", hint="say which one with --filename NAME"
        )


class NoFileSmallEnough(SourceError):
    """No file is within the maximum size."""

    def __init__(self, limit: int, needed: int, offered: Sequence[Variant], *, bare_fits: bool = False) -> None:
        self.limit, self.needed, self.offered, self.bare_fits = limit, needed, tuple(offered), bare_fits
        super().__init__(
            f"nothing there fits into {size_text(limit)}; the smallest needs {size_text(needed)}\n{table(offered)}",
            hint="leave out the projector with --no-projector, or allow more with --max-size"
            if bare_fits
            else "allow more with --max-size, or choose a smaller model",
        )


class IncompleteShards(SourceError):
    """Shards of the model are missing in the repository."""

    def __init__(self, name: str, count: int, missing: Sequence[str], whole: Sequence[Variant] = ()) -> None:
        self.name, self.count, self.missing, self.whole = name, count, tuple(missing), tuple(whole)
        some = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")  # noqa: PLR2004
        super().__init__(
            _with_table(f"{name} is one of {count} shards, and the repository lacks {some}", whole),
            hint="ask for one of these, or for another revision: ORG/MODEL@REV"
            if whole
            else "use another revision: ORG/MODEL@REV",
        )


def differ_in_case_error(names: Sequence[str]) -> SourceError:
    """Return the error for two files whose names differ only in case."""
    names = tuple(names)
    return SourceError(
        f"the repository lists {' and '.join(names)}, which differ only in case",
        hint="tell its makers, or use another revision: ORG/MODEL@REV",
    )


def has_models(files: Iterable[RemoteFile]) -> bool:
    """Return whether there is a GGUF model."""
    return bool(_models(file_names.group_variants(files)))


def select(files: Iterable[RemoteFile], criteria: FileCriteria) -> FileSelection:
    """Return the model that meets the criteria, and its projector; raises ``SourceError`` for none or several."""
    offered = file_names.group_variants(files)
    models = _models(offered)
    fitting, why = _matching_criteria(offered, models, criteria)
    if not _same_bytes(fitting) and len({one.base for one in fitting}) > 1:
        raise AmbiguousFile(fitting)  # which model is meant is for the user to say, whatever their sizes
    order = NEAREST
    if criteria.max_size is not None:
        order, fitting = file_names.KNOWN, _within(criteria.max_size, fitting, offered, criteria)
    best = min(_rank(one, order) for one in fitting)
    chosen = _only_one([one for one in fitting if _rank(one, order) == best])
    if chosen.missing:
        raise IncompleteShards(chosen.name, chosen.shards, chosen.missing, [one for one in models if not one.missing])
    why = why or _why(chosen, models, criteria.max_size)
    return FileSelection(chosen, _projector(chosen, offered) if criteria.projector else None, why)


def weights_for_conversion(
    files: Sequence[RemoteFile], reads: tuple[str, ...] = READ_BY_CONVERSION
) -> tuple[RemoteFile, ...] | None:
    """Return the files that conversion reads, sorted by name; None if a model's safetensors are absent.

    The weights are ``model.safetensors`` if there is no index, else the shards
    ``model-00001-of-0000N.safetensors``, else all of ``model*.safetensors``, of which the index names some. Pickles,
    Python files, adapters and copies of the model for other programs are left out.
    """
    weights = _weights({file.name for file in files if "/" not in file.name})
    if not weights:
        return None
    found: dict[str, RemoteFile] = {}
    for file in sorted(files, key=lambda file: file.name):
        small = not file.name.endswith(".safetensors") and not file.name.startswith(_OTHER_PROGRAMS)
        if file.name in weights or (small and any(_matches_read_pattern(file.name, pattern) for pattern in reads)):
            if file.name.lower() in found:
                raise differ_in_case_error([found[file.name.lower()].name, file.name])
            found[file.name.lower()] = file
    return tuple(sorted(found.values(), key=lambda file: file.name))


def table(offered: Sequence[Variant]) -> str:
    """Return a table of the files, one a line: quantization, size, name."""
    rows = [(one.label or "?", size_text(one.size), one.name, _extent(one)) for one in offered]
    width = max((len(label) for label, *_ in rows), default=0)
    return "\n".join(f"  {label:<{width}}  {size:>9}  {name}{extent}" for label, size, name, extent in rows)


def _with_table(fact: str, offered: Sequence[Variant]) -> str:
    return f"{fact}\n{table(offered)}" if offered else fact


def _ask(offered: Sequence[Variant]) -> str:
    return "ask for one of these" if offered else "choose a repository that has a model as GGUF"


def _extent(one: Variant) -> str:
    if one.missing:
        return f" ({len(one.files)} of {one.shards} shards)"
    return f" ({one.shards} shards)" if one.shards > 1 else ""


def _models(offered: Sequence[Variant]) -> list[Variant]:
    """Return the models; in a repository without one, the drafts or vocoders."""
    by_role = ([one for one in offered if one.role == role] for role in ("model", "draft", "vocoder"))
    return next(filter(None, by_role), [])


def _matching_criteria(
    offered: Sequence[Variant],
    models: Sequence[Variant],
    criteria: FileCriteria,
) -> tuple[Sequence[Variant], str]:
    """Return the models that match name, pattern and quantization, and the reason (empty without criteria)."""
    fitting, why = models, ""
    if criteria.filename is not None:
        fitting, why = _with_name(criteria.filename, offered, models), "asked for by name"
        if not fitting:
            raise NoSuchFile(criteria.filename, models)
    if criteria.pattern is not None:
        pattern = criteria.pattern.lower()
        fitting = [one for one in fitting if any(_matches_pattern(file.name.lower(), pattern) for file in one.files)]
        why = f"it fits {criteria.pattern}"
        if not fitting:
            raise NoSuchFile(criteria.pattern, models)
    if criteria.quantization is not None:
        among, fitting, why = fitting, _quantized(criteria.quantization, fitting), "asked for"
        if not fitting:
            cut = _quantized(criteria.quantization, [one for one in offered if _is_cut(one)])
            raise NoSuchQuantization(criteria.quantization, among, in_pieces=cut[0].name if cut else None)
    if not fitting:
        raise NoSuchFile("*.gguf", models)
    return fitting, why


def _with_name(name: str, offered: Sequence[Variant], models: Sequence[Variant]) -> Sequence[Variant]:
    """Return the files that a name means: a file in any folder, a shard, or a folder with models."""
    exact = [one for one in offered if name in one.missing or any(file.name == name for file in one.files)]
    exact = exact or [one for one in offered if any(file.name.rpartition("/")[2] == name for file in one.files)]
    for one in exact:
        if _is_cut(one):
            raise not_the_model_error(name, "one piece of a file", models)
        if one.role in _NO_MODEL:  # other roles are guessed too often
            raise not_the_model_error(name, _NO_MODEL[one.role], models)
    folder = name.rstrip("/") + "/"
    return exact or [one for one in models if one.name.startswith(folder)]


def _is_cut(one: Variant) -> bool:
    """Return whether the file consists of pieces that must be joined before a program can read it."""
    return one.role == "other" and (len(one.files) > 1 or not one.name.lower().endswith(".gguf"))


def _matches_pattern(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[2], pattern)


def _quantized(wanted: str, models: Sequence[Variant]) -> list[Variant]:
    """Return the models of a quantization; a special variant is left out if the plain one is listed."""
    parsed = file_names.parse_quantization(wanted)
    if parsed is None:
        return []
    variant, quantization = parsed
    found = [one for one in models if one.quantization == quantization and variant in ("", one.variant)]
    plain = {one.base for one in found if not one.variant}
    return [one for one in found if not one.variant or one.base not in plain]


def _within(
    limit: int, fitting: Sequence[Variant], offered: Sequence[Variant], criteria: FileCriteria
) -> list[Variant]:
    needed = {one.name: _whole_size(one, _projector(one, offered) if criteria.projector else None) for one in fitting}
    small = [one for one in fitting if needed[one.name] <= limit]
    if not small:
        bare_fits = any(_whole_size(one) <= limit for one in fitting)
        raise NoFileSmallEnough(limit, min(needed.values()), fitting, bare_fits=bare_fits)
    return small


def _whole_size(one: Variant, projector: RemoteFile | None = None) -> int:
    whole = one.size * one.shards // len(one.files)  # shards that are missing would not be small
    return whole + (0 if projector is None else projector.size)


def _only_one(fitting: Sequence[Variant]) -> Variant:
    """Return one of several equally ranked models: plain, complete, spelled out; raises ``AmbiguousFile``."""
    for better in (lambda one: not one.variant, lambda one: not one.missing, _is_spelled_out):
        fitting = [one for one in fitting if better(one)] or fitting
    if len(fitting) > 1 and not _same_bytes(fitting):
        raise AmbiguousFile(fitting)
    return fitting[0]


def _is_spelled_out(one: Variant) -> bool:
    """Return whether the name has the full type: some repositories list the same file as ``Q4_K_M`` and ``Q4_K``."""
    return one.quantization in one.name.lower().replace("-", "_")


def _same_bytes(fitting: Sequence[Variant]) -> bool:
    digests = {tuple(file.sha256 for file in one.files) for one in fitting}
    return len(digests) == 1 and None not in next(iter(digests))


def _rank(one: Variant, order: tuple[str, ...]) -> float:
    """Return the position in ``order``; an unlisted type comes after its family, ``q4_k_p`` after ``q4_k_…``."""
    if one.quantization in order:
        return order.index(one.quantization)
    family = one.quantization.rpartition("_")[0]
    alike = [rank for rank, name in enumerate(order) if f"{name}_".startswith(f"{family}_")]
    return max(alike, default=len(order)) + 0.5


def _why(one: Variant, models: Sequence[Variant], max_size: int | None) -> str:
    if len(models) == 1:
        return "the only one there"
    if max_size is not None:
        return f"the best within {size_text(max_size)}"
    return "the default" if one.quantization == NEAREST[0] else f"the nearest to {NEAREST[0]} that is there"


def _projector(model: Variant, offered: Sequence[Variant]) -> RemoteFile | None:
    """Return the projector of a model: the one with the nearest name, then by ``PROJECTORS``.

    A projector whose name is nearer to another model belongs to that one.
    """
    bases = {one.base for one in _models(offered)}
    order = {name: rank for rank, name in enumerate(PROJECTORS)}
    found = []
    for one in offered:
        if one.role != "projector" or one.shards > 1:
            continue
        shared = _shared(one, model.base)
        if shared >= max(_shared(one, base) for base in (*bases, model.base)):
            found.append((-shared, order.get(one.quantization, len(order)), one.name, one.files[0]))
    return min(found)[-1] if found else None


def _shared(one: Variant, base: str) -> int:
    words, others = (set(re.split(r"[-._/ ]+", text)) for text in (one.base, base))
    return len((words & others) - {"mmproj", "model"})


def _complete_shards(names: set[str]) -> set[str]:
    """Return the names of complete sets of shards; raises ``IncompleteShards`` if there are only incomplete ones."""
    sets: dict[int, set[str]] = {}
    for name in names:
        if match := re.fullmatch(r"model-\d{5}-of-(?!00000)(\d{5})\.safetensors", name):
            sets.setdefault(int(match[1]), set()).add(name)
    complete: set[str] = set()
    for count, found in sets.items():
        if len(found) >= count and found >= set(_shards(count)):
            complete.update(_shards(count))
    if sets and not complete:
        count = min(sets)
        raise IncompleteShards(min(sets[count]), count, [name for name in _shards(count) if name not in sets[count]])
    return complete


def _shards(count: int) -> Iterable[str]:
    return (f"model-{index:05}-of-{count:05}.safetensors" for index in range(1, count + 1))


def _weights(names: set[str]) -> set[str]:
    """Return the weights among the top-level names of a repository, by the rules of the converter."""
    weights = {name for name in names if fnmatchcase(name, "model*.safetensors")}
    indexed = "model.safetensors.index.json" in names
    if "model.safetensors" in weights and not indexed:
        return {"model.safetensors"}
    return _complete_shards(weights) or weights


def _matches_read_pattern(name: str, pattern: str) -> bool:
    """Return whether a name matches a pattern in which ``*`` does not match a slash."""
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)
