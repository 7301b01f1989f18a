"""What the names of a repository's files say: base, variant, quantization, shard, role. Pure, and on the warm path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from llama_runner.core.errors import SourceError
from llama_runner.core.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llama_runner.sources.hub.pins import RemoteFile

Role = Literal["model", "projector", "draft", "imatrix", "adapter", "vocabulary"]

KNOWN = (
    *("f32", "bf16", "f16", "q8_k_xl", "q8_0_l", "q8_0", "q6_k_xl", "q6_k_l", "q6_k"),
    *("q5_k_xl", "q5_k_l", "q5_k_m", "q5_k_s", "q5_1", "q5_0"),
    *("q4_k_xl", "q4_k_l", "q4_k_m", "q4_k_s", "q4_1", "iq4_nl_xl", "iq4_nl", "iq4_xs", "mxfp4_moe", "nvfp4", "q4_0"),
    *("q4_0_8_8", "q4_0_4_8", "q4_0_4_4"),
    *("q3_k_xl", "q3_k_l", "q3_k_m", "iq3_m", "iq3_s", "q3_k_s", "iq3_xs", "iq3_xxs"),
    *("q2_k_xl", "q2_k_l", "q2_k", "iq2_m", "iq2_s", "q2_k_s", "iq2_xs", "iq2_xxs"),
    *("tq2_0", "q2_0", "iq1_m", "iq1_s", "tq1_0", "q1_0"),
)
"""Quantizations that files are named after, from the best to the smallest. Those that llama-quantize does not list
(``q4_k_xl``) are their makers' own mixtures."""

SPELLED = {
    "fp16": "f16",
    "fp32": "f32",
    "mxfp4": "mxfp4_moe",
    "q3_k": "q3_k_m",
    "q4_k": "q4_k_m",
    "q5_k": "q5_k_m",
}
"""Other names of them."""

VARIANTS = ("ud", "i1", "imat")
"""What stands before a quantization that was made another way: ``UD-Q4_K_XL``, ``i1-Q4_K_M``."""

_QUANTIZATION = (
    r"(?:(?P<variant>ud|i1|imat)[-._])?"
    r"(?P<type>iq[1-4][-_](?:xxs|xs|s|m|nl(?:[-_]xl)?)|q[1-8][-_]k(?:[-_](?:xl|l|m|s))?|q[1-8][-_][01](?:[-_]l|_[48]_[48])?"
    r"|tq[12][-_]0|mxfp4(?:[-_]moe)?|nvfp4|bf16|fp?16|fp?32)"
)
_SHARD = r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})"
_LONGEST_COMPONENT = 255


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
    """``ud``, ``i1``, …; empty for the plain one."""
    quantization: str
    """As in ``KNOWN``; empty where the name says none."""
    role: Role
    files: tuple[RemoteFile, ...]
    """Shards in their order."""
    missing: tuple[str, ...] = ()
    """Names of shards that are not listed."""

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


def quantization_named(text: str) -> tuple[str, str] | None:
    """Return variant and quantization of a name that is nothing else: ``UD-Q4_K_XL``; None for other texts."""
    match = re.fullmatch(_QUANTIZATION, text.strip(), re.IGNORECASE)
    return None if match is None else _canonical(match)


def variants(files: Iterable[RemoteFile]) -> tuple[Variant, ...]:
    """Return what a listing offers, sorted by name: GGUF files and importance matrices."""
    single: list[Variant] = []
    shards: dict[tuple[str, int], dict[int, RemoteFile]] = {}
    for file in sorted(files, key=lambda file: file.name):
        stem, ending = _split_ending(file.name)
        if ending in (".imatrix", ".dat") and "imatrix" in file.name.lower():
            single.append(Variant(stem, "", "", "imatrix", (file,)))
        elif ending == ".gguf":
            if match := re.fullmatch(_SHARD, stem):
                shards.setdefault((match["stem"], int(match["count"])), {})[int(match["index"])] = file
            else:
                single.append(_variant(stem, (file,), ()))
    for (stem, count), found in shards.items():
        names = {index: f"{stem}-{index:05}-of-{count:05}.gguf" for index in range(1, count + 1)}
        missing = tuple(name for index, name in names.items() if index not in found)
        single.append(_variant(stem, tuple(found[index] for index in sorted(found)), missing))
    return tuple(sorted(single, key=lambda variant: variant.name))


def check_names(repo: str, files: Sequence[RemoteFile]) -> None:
    """Raise ``UnsafeListing`` for a name that would leave the directory it is put into, or that no system can hold."""
    names = {file.name for file in files}
    for file in files:
        check_name(repo, file.name)
        if file.size < 0:
            raise UnsafeListing(repo, file.name, f"its size is {file.size}")
        parts = file.name.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in names:
                raise UnsafeListing(repo, file.name, "one of its folders is a file as well")


def check_name(repo: str, name: str) -> None:
    """Raise ``UnsafeListing`` for a name that must not become a path here."""
    if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in name):  # noqa: PLR2004
        raise UnsafeListing(repo, name, "it has control characters")
    if any(letter in name for letter in '\\:*?"<>|'):
        raise UnsafeListing(repo, name, "it has characters that are not possible everywhere")
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise UnsafeListing(repo, name, "it would leave the directory it is put into")
        if len(part.encode("utf-8", "surrogatepass")) > _LONGEST_COMPONENT:
            raise UnsafeListing(repo, name, "it is too long")


def _split_ending(name: str) -> tuple[str, str]:
    stem, dot, ending = name.rpartition(".")
    return (stem, f".{ending.lower()}") if dot else (name, "")


def _variant(stem: str, files: tuple[RemoteFile, ...], missing: tuple[str, ...]) -> Variant:
    folder, _, name = stem.rpartition("/")
    found = _last(name)
    rest = name if found is None else _without(name, found)
    if found is None and (found := _last(folder)) is not None:  # only the folder says it
        folder = _without(folder, found)
    elif found is not None and (of_folder := _last(folder)) and _canonical(of_folder)[1] == _canonical(found)[1]:
        folder = _without(folder, of_folder)
    variant, quantization = ("", "") if found is None else _canonical(found)
    base = "/".join(filter(None, (folder.strip("/"), rest.strip("-._ ")))).lower()
    return Variant(base, variant, quantization, _role(name, quantization), files, missing)


def _last(text: str) -> re.Match[str] | None:
    """Return the last quantization in a name: what stands before it may be part of the model's own."""
    pattern = rf"(?<![A-Za-z0-9]){_QUANTIZATION}(?![A-Za-z0-9])"
    return max(re.finditer(pattern, text, re.IGNORECASE), key=lambda match: match.start(), default=None)


def _without(text: str, match: re.Match[str]) -> str:
    return text[: match.start()].rstrip("-._ ") + text[match.end() :]


def _canonical(match: re.Match[str]) -> tuple[str, str]:
    spelled = match["type"].lower().replace("-", "_")
    return (match["variant"] or "").lower(), SPELLED.get(spelled, spelled)


def _role(name: str, quantization: str) -> Role:
    words = set(re.split(r"[-._ ]+", name.lower()))
    if "mmproj" in words or words & {"projector", "vision_tower"}:
        return "projector"
    if "imatrix" in words and not quantization:
        return "imatrix"
    if words & {"lora", "adapter"}:
        return "adapter"
    if {"ggml", "vocab"} <= words or {"vocab", "only"} <= words:
        return "vocabulary"
    if words & {"draft", "eagle", "eagle3"} or name.lower().startswith("mtp-"):
        return "draft"
    return "model"
