"""Interprets the names of a repository's files: base, variant, quantization, shard, role. Pure, on the warm path.

There is no common rule for names of GGUF files. This module reads the forms of the large makers: the quantization
anywhere in the name or only in its folder, in any case, between dots, dashes or underscores; ``UD-``, ``i1-`` before it
or ``-imat`` after it; shards beside single files, and projectors, drafts and importance matrices among them.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Literal

from llama_runner.core.errors import SourceError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llama_runner.sources.hub.pins import RemoteFile

Role = Literal["model", "projector", "draft", "vocoder", "imatrix", "adapter", "vocabulary", "other"]

FOREIGN = (
    *("q4_0_8_8", "q4_0_4_8", "q4_0_4_4", "iq6_k", "iq5_k", "iq5_ks", "iq4_k", "iq4_ks", "iq4_kss", "iq4_kt"),
    *("iq3_k", "iq3_ks", "iq3_kt", "iq2_kl", "iq2_k", "iq2_ks", "iq2_kt", "i2_s", "iq1_kt"),
)
"""Those that llama.cpp does not load: the repacked q4_0 of former versions, and the types of other programs."""

KNOWN = (
    *("f32", "bf16", "f16", "q8_k_xl", "q8_0_l", "q8_0", "q8", "q6_k_xl", "q6_k_l", "q6_k", "q6"),
    *("q5_k_xl", "q5_k_l", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q5"),
    *("q4_k_xl", "q4_k_l", "q4_k_m", "q4_k_s", "q4_1", "iq4_nl_xl", "iq4_nl", "iq4_xs", "mxfp4_moe", "nvfp4", "q4_0"),
    *("q4", "q3_k_xl", "q3_k_l", "q3_k_m", "iq3_m", "iq3_s", "q3_k_s", "iq3_xs", "iq3_xxs", "q3"),
    *("q2_k_xl", "q2_k_l", "q2_k", "iq2_m", "iq2_s", "q2_k_s", "iq2_xs", "iq2_xxs", "q2"),
    *("tq2_0", "q2_0", "iq1_m", "iq1_s", "tq1_0", "q1_0"),
    *FOREIGN,
)
"""Quantizations in file names, from the best to the smallest, then those that llama.cpp cannot load. Names that
llama-quantize does not list are mixtures of a maker (``q4_k_xl``), incomplete (``q4``), or of other programs."""

ALIASES = {
    "fp16": "f16",
    "fp32": "f32",
    "mxfp4": "mxfp4_moe",
    "q3_k": "q3_k_m",
    "q4_k": "q4_k_m",
    "q5_k": "q5_k_m",
    "int4": "q4",
    "int8": "q8",
    "imatrix": "imat",
}
"""Other spellings of quantizations."""

_SIXTEEN = r"bf16|fp?16|fp?32"
_MADE = rf"ud|i1|imat(?:rix)?|smol|pure|\d+(?:\.\d+)?bpw|{_SIXTEEN}"
_EXACT = (
    r"iq[1-6][-_](?:xxs|xs|s|m|nl(?:[-_]xl)?)|iq[1-6]_k(?:ss|s|l|t)?(?:_r[48])?"
    r"|q[1-8][-_]k(?:[-_](?:xl|l|m|s)|_(?:xxl|xs|[a-z]))?|q[1-8][-_][01](?:[-_]l|_[48]_[48]|_g\d+|_[a-z])?"
    rf"|tq[12][-_]0|mxfp4(?:[-_]moe)?|nvfp4|i2_s|{_SIXTEEN}"
)
_BARE = r"q[2-8]|int[48]"
_QUANTIZATION = (
    rf"(?P<before>(?:(?:{_MADE})[-._]){{0,4}})(?P<type>%s)(?P<after>[-._](?:imat(?:rix)?|\d+(?:\.\d+)?bpw))?"
)
"""The variant stands before the type (``UD-Q4_K_XL``, ``i1-Q4_K_M``; ``bf16-Q8_0``: the outer tensors) or after it.
The number of its words is limited: without a limit, matching a long name takes quadratic time."""

_SHARD = r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})"
_PIECE = r"(?P<stem>.+)(?:\.gguf(?:-split-[a-z]|\.part-?\d+of\d+|\.[a-z])|-chunk-\d+-of-\d+\.gguf)"
"""Pieces of a file, which must be joined before a program can read them; shards, in contrast, are GGUF files."""

UNSEEN = r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
"""Characters that change how a name looks on a terminal, and those that no file system allows."""

_MOST_MISSING = 1000
_LONGEST_COMPONENT = 255
_LONGEST_NAME = 1000
_LARGEST = 1 << 50


class UnsafeListing(SourceError):
    """A repository lists a file whose name must not be used as a path."""

    def __init__(self, repo: str, name: str, why: str) -> None:
        self.repo, self.name, self.why = repo, name, why
        super().__init__(
            f"{repo} lists a file called {name[:80]!r}: {why}", hint="nothing was fetched; do not trust this repository"
        )


class Variant(Value):
    """One model file of a repository, or one set of shards."""

    base: str
    """Folder and name without the quantization; it tells two models of one repository apart."""
    variant: str
    """How it was quantized: ``ud``, ``i1``, ``imat``, …; empty for the plain variant."""
    quantization: str
    """A name of ``KNOWN`` or of the same family (``q4_k_p``); empty if the file's name has none."""
    role: Role
    files: tuple[RemoteFile, ...]
    """Shards in their order."""
    shards: int = 1
    """Number of files of the complete set."""

    @property
    def size(self) -> int:
        """Bytes of all listed shards."""
        return sum(file.size for file in self.files)

    @property
    def name(self) -> str:
        """Name of the file, or of its first shard."""
        return self.files[0].name

    @property
    def label(self) -> str:
        """Variant and quantization in upper case."""
        return "-".join(filter(None, (self.variant, self.quantization))).upper()

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of shards that are not listed, at most a thousand."""
        if len(self.files) == self.shards:
            return ()
        stem, _, ending = self.name.rpartition(".")
        prefix, here = stem[: -len("-00001-of-00001")], {file.name for file in self.files}
        names = (f"{prefix}-{index:05}-of-{self.shards:05}.{ending}" for index in range(1, self.shards + 1))
        return tuple(islice((name for name in names if name not in here), _MOST_MISSING))


def parse_quantization(text: str) -> tuple[str, str] | None:
    """Return variant and quantization of a text such as ``UD-Q4_K_XL``; None for any other text."""
    match = re.fullmatch(_QUANTIZATION % f"{_EXACT}|{_BARE}", text.strip(), re.IGNORECASE)
    return None if match is None else _canonical(match)


def group_variants(files: Iterable[RemoteFile]) -> tuple[Variant, ...]:
    """Group a listing into GGUF files, pieces of files and importance matrices, sorted by name."""
    found: list[Variant] = []
    sets: dict[tuple[str, int, str], list[RemoteFile]] = {}
    for file in sorted(files, key=lambda file: file.name):
        stem, dot, ending = file.name.rpartition(".")
        ending = ending.lower() if dot else ""
        shard = re.fullmatch(_SHARD, stem) if ending == "gguf" else None
        piece = re.fullmatch(_PIECE, file.name, re.IGNORECASE)
        if ending in ("imatrix", "dat", "gguf_file") and "imatrix" in file.name.lower():
            found.append(Variant(stem.lower(), "", "", "imatrix", (file,)))
        elif piece:
            sets.setdefault((piece["stem"], 0, ""), []).append(file)
        elif shard and 1 <= int(shard["index"]) <= int(shard["count"]):
            sets.setdefault((shard["stem"], int(shard["count"]), file.name[-4:]), []).append(file)
        elif ending == "gguf":
            found.append(_variant(stem, (file,), 1))
    for (stem, count, _), shards in sets.items():
        one = _variant(stem, tuple(shards), count or len(shards))
        found.append(one if count else one.replace(role="other"))
    return tuple(sorted(found, key=lambda variant: variant.name))


def check_names(repo: str, files: Sequence[RemoteFile]) -> None:
    """Raise ``UnsafeListing`` for a name that leaves its directory or that some file system cannot hold."""
    names = {file.name for file in files}
    seen: set[str] = set()
    for file in files:
        check_name(repo, file.name)
        if file.name in seen:
            raise UnsafeListing(repo, file.name, "it is listed twice")
        seen.add(file.name)
        if not 0 <= file.size <= _LARGEST:
            raise UnsafeListing(repo, file.name, f"its size is {file.size}")
        parts = file.name.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in names:
                raise UnsafeListing(repo, file.name, "one of its folders is a file as well")


def check_name(repo: str, name: str) -> None:
    """Raise ``UnsafeListing`` for a name that must not be used as a path."""
    why = name_problem(name)
    if why is not None:
        raise UnsafeListing(repo, name, why)


def name_problem(name: str) -> str | None:
    """Return why a name must not be used as a path; None for a good one."""
    if re.search(UNSEEN, name):
        return "it has control characters"
    if "\\" in name or re.match(r"[A-Za-z]:", name) or any(part in ("", ".", "..") for part in name.split("/")):
        return "it would leave the directory it is put into"
    if len(name.encode()) > _LONGEST_NAME or any(len(part.encode()) > _LONGEST_COMPONENT for part in name.split("/")):
        return "it is too long"
    # other files may have such names, such as a log of 12:30: they are never fetched
    if name.lower().endswith((".gguf", ".safetensors", ".json", ".jinja")) and any(
        letter in name for letter in ':*?"<>|'
    ):
        return "it has characters that are not possible everywhere"
    return None


def _variant(stem: str, files: tuple[RemoteFile, ...], shards: int) -> Variant:
    folder, _, name = stem.rpartition("/")
    found, of_folder = _last(name), _last(folder)
    rest = name if found is None else _without(name, found)
    variant, quantization = ("", "") if found is None else _canonical(found)
    if of_folder is not None:
        made, kind = _canonical(of_folder)
        if quantization in ("", kind):  # DeepSeek-Q4_K_M/DeepSeek-Q4_K_M-00001-…, or only the folder says it
            folder, quantization, variant = _without(folder, of_folder), kind, variant or made
    folder, rest = folder.strip("-._ /").lower(), rest.strip("-._ ").lower()
    if folder.rpartition("/")[2] == rest:  # beside files that have no folder
        folder = folder.rpartition("/")[0]
    base = "/".join(filter(None, (folder, rest)))
    return Variant(base, variant, quantization, _role(stem.lower(), quantization), files, shards)


def _last(text: str) -> re.Match[str] | None:
    """Return the last quantization in a name; an earlier one may be part of the model's name.

    ``q4`` without a suffix counts only at the end of a name, not in ``q4-finetune``.
    """
    found = None
    for pattern in (rf"{_QUANTIZATION % _EXACT}(?![A-Za-z0-9])", rf"{_QUANTIZATION % _BARE}$"):
        for match in re.finditer(rf"(?<![A-Za-z0-9]){pattern}", text, re.IGNORECASE):
            found = match if found is None or match.end() > found.end() else found
    return found


def _without(text: str, match: re.Match[str]) -> str:
    return text[: match.start()].rstrip("-._ ") + text[match.end() :]


def _canonical(match: re.Match[str]) -> tuple[str, str]:
    made = [*re.split(r"[-_]|\.(?!\d+bpw)", match["before"].lower()), (match["after"] or "")[1:].lower()]
    kind = match["type"].lower().replace("-", "_")
    return "-".join(ALIASES.get(word, word) for word in made if word), ALIASES.get(kind, kind)


def _role(stem: str, quantization: str) -> Role:
    """Return the role of a file, by its lower-case name without the suffix."""
    folder, _, name = stem.rpartition("/")
    words = re.split(r"[-._ ]+", name)
    has = set(words)
    if "mmproj" in name or "projector" in has:
        return "projector"
    if "imatrix" in (words[0], words[-1]) or ("imatrix" in has and not quantization):
        return "imatrix"
    if (
        has & {"lora", "adapter"}
        and not has & {"merged", "merge"}
        and quantization in ("", "f32", "bf16", "f16", "q8_0")
    ):
        return "adapter"  # with fewer bits it is a model that was trained with LoRA
    if name.startswith("ggml-vocab") or words[-1] == "vocab" or {"vocab", "only"} <= has:
        return "vocabulary"
    drafts = {"draft", "drafter", "eagle3", "dflash", "dspark"}
    if words[0] == "mtp" or has & drafts or set(folder.split("/")) & {"mtp", "drafts", *drafts}:
        return "draft"  # elsewhere in a name, MTP means that the model itself has such a head
    if "wavtokenizer" in has:
        return "vocoder"
    parts = {"vocoder", "audiodecoder", "detokenizer", "token2wav", "code2wav", "cvector"}
    pairs = ({"control", "vector"}, {"text", "encoder"})
    if has & parts or words[0] in ("tokenizer", "codec") or any(pair <= has for pair in pairs):
        return "other"
    return "other" if re.search(r"-\d{5}-of-\d{5}", name) else "model"  # llama.cpp recognises shards by this suffix
