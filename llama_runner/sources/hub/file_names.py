"""What the names of a repository's files say: base, variant, quantization, shard, role. Pure, and on the warm path.

There is no rule that makers of GGUF files keep. What is understood here is what the large ones do: the quantization
anywhere in the name or only in its folder, in any case, between dots, dashes or underscores; ``UD-``, ``i1-`` before it
or ``-imat`` after it; shards beside single files, and projectors, drafts and importance matrices between them.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Literal

from llama_runner.core.errors import SourceError
from llama_runner.core.value import Value

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
"""Quantizations that files are named after, from the best to the smallest, and then those that cannot be loaded. What
llama-quantize does not list is its maker's own mixture (``q4_k_xl``), of no certain type (``q4``), or foreign."""

SPELLED = {
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
"""Other names of them."""

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
"""How it was made stands before the type (``UD-Q4_K_XL``, ``i1-Q4_K_M``; ``bf16-Q8_0``: the outer tensors) or after.
No more than a few are read: without a limit, a long name costs the square of its length."""

_SHARD = r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})"
_PIECE = r"(?P<stem>.+)(?:\.gguf(?:-split-[a-z]|\.part-?\d+of\d+|\.[a-z])|-chunk-\d+-of-\d+\.gguf)"
"""Pieces of a file that must be joined before any program can read them; shards are GGUF files themselves."""

UNSEEN = r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
"""Characters that make another name of it on a terminal, and those that no file system has."""

_MOST_MISSING = 1000
_LONGEST_COMPONENT = 255
_LONGEST_NAME = 1000
_LARGEST = 1 << 50


class UnsafeListing(SourceError):
    """A repository lists a file whose name must not become a path here."""

    def __init__(self, repo: str, name: str, why: str) -> None:
        self.repo, self.name, self.why = repo, name, why
        super().__init__(
            f"{repo} lists a file called {name[:80]!r}: {why}", hint="nothing was fetched; do not trust this repository"
        )


class Variant(Value):
    """One artifact of a repository: a GGUF file, or all shards of one."""

    base: str
    """What the name says beside the quantization, with the folder: two models of one repository differ in it."""
    variant: str
    """How it was made: ``ud``, ``i1``, ``imat``, …; empty for the plain one."""
    quantization: str
    """As in ``KNOWN``, or another one of its family (``q4_k_p``); empty where the name says none."""
    role: Role
    files: tuple[RemoteFile, ...]
    """Shards in their order."""
    shards: int = 1
    """How many files there should be."""

    @property
    def size(self) -> int:
        """Bytes, of all shards."""
        return sum(file.size for file in self.files)

    @property
    def name(self) -> str:
        """The file, or the first of its shards."""
        return self.files[0].name

    @property
    def label(self) -> str:
        """The quantization with its variant, as people write it."""
        return "-".join(filter(None, (self.variant, self.quantization))).upper()

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of shards that are not listed; the first thousand of them."""
        if len(self.files) == self.shards:
            return ()
        stem, _, ending = self.name.rpartition(".")
        prefix, here = stem[: -len("-00001-of-00001")], {file.name for file in self.files}
        names = (f"{prefix}-{index:05}-of-{self.shards:05}.{ending}" for index in range(1, self.shards + 1))
        return tuple(islice((name for name in names if name not in here), _MOST_MISSING))


def quantization_named(text: str) -> tuple[str, str] | None:
    """Return variant and quantization of a name that is nothing else: ``UD-Q4_K_XL``; None for other texts."""
    match = re.fullmatch(_QUANTIZATION % f"{_EXACT}|{_BARE}", text.strip(), re.IGNORECASE)
    return None if match is None else _canonical(match)


def variants(files: Iterable[RemoteFile]) -> tuple[Variant, ...]:
    """Return what a listing offers, sorted by name: GGUF files, what was cut from them, and importance matrices."""
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
    """Raise ``UnsafeListing`` for a name that would leave the directory it is put into, or that no system can hold."""
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
    """Raise ``UnsafeListing`` for a name that must not become a path here."""
    why = what_is_wrong(name)
    if why is not None:
        raise UnsafeListing(repo, name, why)


def what_is_wrong(name: str) -> str | None:
    """Return why a name must not become a path here; None for a good one."""
    if re.search(UNSEEN, name):
        return "it has control characters"
    if "\\" in name or re.match(r"[A-Za-z]:", name) or any(part in ("", ".", "..") for part in name.split("/")):
        return "it would leave the directory it is put into"
    if len(name.encode()) > _LONGEST_NAME or any(len(part.encode()) > _LONGEST_COMPONENT for part in name.split("/")):
        return "it is too long"
    # others may have such names, a log of 12:30 for one: they are never fetched
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
    """Return the last quantization in a name: what stands before it may be part of the model's own.

    ``q4`` alone is one only at the end: ``q4-finetune`` is some name.
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
    return "-".join(SPELLED.get(word, word) for word in made if word), SPELLED.get(kind, kind)


def _role(stem: str, quantization: str) -> Role:
    """Say what a file is for, by its name in small letters, without the ending."""
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
        return "adapter"  # what is quantized further is a model that was trained so
    if name.startswith("ggml-vocab") or words[-1] == "vocab" or {"vocab", "only"} <= has:
        return "vocabulary"
    drafts = {"draft", "drafter", "eagle3", "dflash", "dspark"}
    if words[0] == "mtp" or has & drafts or set(folder.split("/")) & {"mtp", "drafts", *drafts}:
        return "draft"  # MTP elsewhere in a name says that the model itself has such a head
    if "wavtokenizer" in has:
        return "vocoder"
    parts = {"vocoder", "audiodecoder", "detokenizer", "token2wav", "code2wav", "cvector"}
    pairs = ({"control", "vector"}, {"text", "encoder"})
    if has & parts or words[0] in ("tokenizer", "codec") or any(pair <= has for pair in pairs):
        return "other"
    return "other" if re.search(r"-\d{5}-of-\d{5}", name) else "model"  # llama.cpp knows shards by how they end
