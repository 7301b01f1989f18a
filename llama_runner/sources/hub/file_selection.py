"""Which files of a repository are meant. Pure, and made anew at each run: the same listing gives the same choice.

An exact wish is fulfilled or an error that lists what there is. Files that fit equally are an error too, never a
silent choice, unless they are the same bytes.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from llama_runner.core.errors import SourceError
from llama_runner.core.model_files import READ_BY_CONVERSION
from llama_runner.core.sizes import size_text
from llama_runner.core.value import Value
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
"""What is taken when nothing is asked for, the first that is there: q4_k_m and its like, then what is better and larger
up to 8 bits, then 3 bits, then 16, and then what loses most. Last is what cannot be loaded."""

PROJECTORS = ("f16", "bf16", "q8_0", "f32")
"""Which projector comes along: they are small, and f16 is what most are tested with."""

_OTHER_PROGRAMS = ("original/", "onnx/", "openvino/")
"""Folders of the same model for other programs, with a config.json of their own."""

_NO_MODEL = {"projector": "a projector", "imatrix": "an importance matrix"}


class Wish(Value):
    """What the user said about the files."""

    quantization: str | None = None
    filename: str | None = None
    """A file, any shard of one, or a folder."""
    pattern: str | None = None
    max_size: int | None = None
    """Bytes of model and projector."""
    projector: bool = True


class Choice(Value):
    """What is meant."""

    model: Variant
    projector: RemoteFile | None
    why: str
    """A clause for people."""


class NoSuchQuantization(SourceError):
    """No GGUF file has the quantization that was asked for."""

    def __init__(self, quantization: str, offered: Sequence[Variant], *, in_pieces: str | None = None) -> None:
        self.quantization, self.offered, self.in_pieces = quantization, tuple(offered), in_pieces
        super().__init__(
            _with_table(f"no GGUF file there is {quantization}", offered),
            hint=_ask(offered)
            if in_pieces is None
            else f"it is there in pieces ({in_pieces}, …), which must be joined by hand; or ask for one of these",
        )


class NoSuchFile(SourceError):
    """No GGUF file has the name that was asked for."""

    def __init__(self, name: str, offered: Sequence[Variant]) -> None:
        self.name, self.offered = name, tuple(offered)
        super().__init__(_with_table(f"no GGUF file there is called {name}", offered), hint=_ask(offered))


def not_the_model_error(name: str, what: str, offered: Sequence[Variant]) -> SourceError:
    """The file that was asked for is one that goes with a model."""
    offered = tuple(offered)
    return SourceError(_with_table(f"{name} is {what}", offered), hint=_ask(offered))


class SeveralFit(SourceError):
    """More than one file is what was asked for."""

    def __init__(self, fitting: Sequence[Variant]) -> None:
        self.fitting = tuple(fitting)
        super().__init__(
            f"{len(fitting)} models there fit equally\n{table(fitting)}", hint="say which one with --filename NAME"
        )


class NothingFits(SourceError):
    """No file is as small as was asked for."""

    def __init__(self, limit: int, needed: int, offered: Sequence[Variant], *, bare_fits: bool = False) -> None:
        self.limit, self.needed, self.offered, self.bare_fits = limit, needed, tuple(offered), bare_fits
        super().__init__(
            f"nothing there fits into {size_text(limit)}; the smallest needs {size_text(needed)}\n{table(offered)}",
            hint="leave out the projector with --no-projector, or allow more with --max-size"
            if bare_fits
            else "allow more with --max-size, or choose a smaller model",
        )


class IncompleteShards(SourceError):
    """The model is in several files, and the repository lacks some."""

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
    """Two files that would be fetched into one directory have names that some systems take for one."""
    names = tuple(names)
    return SourceError(
        f"the repository lists {' and '.join(names)}, which differ in nothing but case",
        hint="tell its makers, or use another revision: ORG/MODEL@REV",
    )


def has_models(files: Iterable[RemoteFile]) -> bool:
    """Whether there is any GGUF model."""
    return bool(_models(file_names.variants(files)))


def select(files: Iterable[RemoteFile], wish: Wish) -> Choice:
    """Return the model that is meant, and its projector; a ``SourceError`` where that is not clear."""
    offered = file_names.variants(files)
    models = _models(offered)
    fitting, why = _asked_for(offered, models, wish)
    if not _same_bytes(fitting) and len({one.base for one in fitting}) > 1:
        raise SeveralFit(fitting)  # which model is meant is for the user to say, whatever their sizes
    order = NEAREST
    if wish.max_size is not None:
        order, fitting = file_names.KNOWN, _within(wish.max_size, fitting, offered, wish)
    best = min(_rank(one, order) for one in fitting)
    chosen = _the_one([one for one in fitting if _rank(one, order) == best])
    if chosen.missing:
        raise IncompleteShards(chosen.name, chosen.shards, chosen.missing, [one for one in models if not one.missing])
    why = why or _why(chosen, models, wish.max_size)
    return Choice(chosen, _projector(chosen, offered) if wish.projector else None, why)


def weights_for_conversion(
    files: Sequence[RemoteFile], reads: tuple[str, ...] = READ_BY_CONVERSION
) -> tuple[RemoteFile, ...] | None:
    """Return exactly what conversion reads, sorted by name; None without safetensors that are a model's.

    The weights are ``model.safetensors`` where there is no index beside it, else the shards
    ``model-00001-of-0000N.safetensors``, else whatever is called ``model*.safetensors``, of which the index then names
    some. Never pickles, Python files, adapters, or the same model for another program.
    """
    weights = _weights({file.name for file in files if "/" not in file.name})
    if not weights:
        return None
    found: dict[str, RemoteFile] = {}
    for file in sorted(files, key=lambda file: file.name):
        small = not file.name.endswith(".safetensors") and not file.name.startswith(_OTHER_PROGRAMS)
        if file.name in weights or (small and any(_matches(file.name, pattern) for pattern in reads)):
            if file.name.lower() in found:
                raise differ_in_case_error([found[file.name.lower()].name, file.name])
            found[file.name.lower()] = file
    return tuple(sorted(found.values(), key=lambda file: file.name))


def table(offered: Sequence[Variant]) -> str:
    """Return what there is, a line each: quantization, size, file."""
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
    """Return the models; where there are none, what goes with one: somebody keeps it in a repository of its own."""
    by_role = ([one for one in offered if one.role == role] for role in ("model", "draft", "vocoder"))
    return next(filter(None, by_role), [])


def _asked_for(offered: Sequence[Variant], models: Sequence[Variant], wish: Wish) -> tuple[Sequence[Variant], str]:
    """Return the models that the exact wishes leave, at least one, and why; no reason when there was no such wish."""
    fitting, why = models, ""
    if wish.filename is not None:
        fitting, why = _called(wish.filename, offered, models), "asked for by name"
        if not fitting:
            raise NoSuchFile(wish.filename, models)
    if wish.pattern is not None:
        pattern = wish.pattern.lower()
        fitting = [one for one in fitting if any(_fits(file.name.lower(), pattern) for file in one.files)]
        why = f"it fits {wish.pattern}"
        if not fitting:
            raise NoSuchFile(wish.pattern, models)
    if wish.quantization is not None:
        among, fitting, why = fitting, _quantized(wish.quantization, fitting), "asked for"
        if not fitting:
            cut = _quantized(wish.quantization, [one for one in offered if _is_cut(one)])
            raise NoSuchQuantization(wish.quantization, among, in_pieces=cut[0].name if cut else None)
    if not fitting:
        raise NoSuchFile("*.gguf", models)
    return fitting, why


def _called(name: str, offered: Sequence[Variant], models: Sequence[Variant]) -> Sequence[Variant]:
    """Return what a name means: a file wherever it lies, any of its shards, or a folder with models."""
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
    """Whether somebody has to join its pieces before anything can read it."""
    return one.role == "other" and (len(one.files) > 1 or not one.name.lower().endswith(".gguf"))


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[2], pattern)


def _quantized(wanted: str, models: Sequence[Variant]) -> list[Variant]:
    """Return the models of a quantization; one made another way is not meant where the plain one is listed."""
    parsed = file_names.quantization_named(wanted)
    if parsed is None:
        return []
    variant, quantization = parsed
    found = [one for one in models if one.quantization == quantization and variant in ("", one.variant)]
    plain = {one.base for one in found if not one.variant}
    return [one for one in found if not one.variant or one.base not in plain]


def _within(limit: int, fitting: Sequence[Variant], offered: Sequence[Variant], wish: Wish) -> list[Variant]:
    needed = {one.name: _whole_size(one, _projector(one, offered) if wish.projector else None) for one in fitting}
    small = [one for one in fitting if needed[one.name] <= limit]
    if not small:
        bare_fits = any(_whole_size(one) <= limit for one in fitting)
        raise NothingFits(limit, min(needed.values()), fitting, bare_fits=bare_fits)
    return small


def _whole_size(one: Variant, projector: RemoteFile | None = None) -> int:
    whole = one.size * one.shards // len(one.files)  # shards that are missing would not be small
    return whole + (0 if projector is None else projector.size)


def _the_one(fitting: Sequence[Variant]) -> Variant:
    """Return the one that is meant, of several of one rank: plain, whole, spelled out; else ``SeveralFit``."""
    for better in (lambda one: not one.variant, lambda one: not one.missing, _is_spelled_out):
        fitting = [one for one in fitting if better(one)] or fitting
    if len(fitting) > 1 and not _same_bytes(fitting):
        raise SeveralFit(fitting)
    return fitting[0]


def _is_spelled_out(one: Variant) -> bool:
    """Whether the name has the quantization in full: some repositories have ``Q4_K_M`` and, as the same, ``Q4_K``."""
    return one.quantization in one.name.lower().replace("-", "_")


def _same_bytes(fitting: Sequence[Variant]) -> bool:
    digests = {tuple(file.sha256 for file in one.files) for one in fitting}
    return len(digests) == 1 and None not in next(iter(digests))


def _rank(one: Variant, order: tuple[str, ...]) -> float:
    """Return the place in an order; what it does not name comes right after its family, ``q4_k_p`` after ``q4_k_…``."""
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
    """Return the projector of a model: of those whose name is nearest to its own, by type.

    One that is nearer to another model of the repository is that model's.
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
    """Return the names of the shards of which none is missing; ``IncompleteShards`` where there are only others."""
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
    """Return the weights among the names at the top of a repository, as conversion would look for them."""
    weights = {name for name in names if fnmatchcase(name, "model*.safetensors")}
    indexed = "model.safetensors.index.json" in names
    if "model.safetensors" in weights and not indexed:
        return {"model.safetensors"}
    return _complete_shards(weights) or weights


def _matches(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern in which ``*`` stands for no slash."""
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)
