"""Checks ``/etc/llama.cpp/config.ini``, whose options every program of llama.cpp applies.

Options that only tune a program are accepted with a message. Any other option is refused: it could open files, run
tools, load adapters or change who may use a server.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_runner.core.errors import ServerError
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCEPT_VARIABLE = "LLAMA_RUNNER_SYSTEM_CONFIG"
"""With the value ``accept``, every option of the file is accepted."""

_LIMIT = 1 << 20
_APPLIED = ("", "*", "default")
"""Sections that llama.cpp applies; others are for its router."""
_HEADER = re.compile(r"\s*\[\s*([^\]]*?)\s*\]")
_OPTION = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=")

_OURS = "host port model m threads t cors-origins version"
_OVERRIDDEN = frozenset(_OURS.split())
"""Options that we always pass, so that those of the file have no effect. ``version`` is the file's own."""

_PERFORMANCE = """
threads-batch tb cpu-mask C cpu-range Cr cpu-strict prio poll cpu-mask-batch Cb cpu-range-batch Crb cpu-strict-batch
prio-batch poll-batch ctx-size c batch-size b batch ubatch-size ub ubatch keep swa-full flash-attn fa kv-offload kvo
nkvo no-kv-offload repack nr no-repack no-host cache-type-k ctk cache-type-v ctv defrag-thold dt mlock mmap no-mmap
direct-io dio ndio no-direct-io load-mode lm numa device dev cpu-moe cmoe n-cpu-moe ncmoe gpu-layers ngl n-gpu-layers
split-mode sm tensor-split ts main-gpu mg fit fit-target fitt fit-ctx fitc check-tensors op-offload no-op-offload
parallel np n-parallel cont-batching cb nocb no-cont-batching kv-unified kvu no-kvu no-kv-unified cache-ram cram
ctx-checkpoints ctxcp swa-checkpoints cache-idle-slots no-cache-idle-slots cache-prompt no-cache-prompt cache-reuse
context-shift no-context-shift warmup no-warmup perf no-perf threads-http timeout to slot-prompt-similarity sps
sleep-idle-seconds
"""
_SAMPLING = """
predict n n-predict samplers seed s sampler-seq sampling-seq ignore-eos temp temperature top-k top-p min-p top-nsigma
top-n-sigma xtc-probability xtc-threshold typical typical-p repeat-last-n repeat-penalty presence-penalty
frequency-penalty dry-multiplier dry-base dry-allowed-length dry-penalty-last-n dry-sequence-breaker adaptive-target
adaptive-decay dynatemp-range dynatemp-exp mirostat mirostat-lr mirostat-ent logit-bias l backend-sampling bs reasoning
rea reasoning-format reasoning-effort reasoning-budget
"""
_MESSAGES = """
log-colors log-prefix no-log-prefix log-timestamps no-log-timestamps log-verbosity verbosity lv offline metrics slots
no-slots
"""
_HARMLESS = frozenset(f"{_PERFORMANCE} {_SAMPLING} {_MESSAGES}".split())


def check(path: str, environment: Mapping[str, str]) -> str | None:
    """Return a message about the options that the file sets, None if it sets none; raises ``ServerError``."""
    try:
        names = _options(read_bounded(path, _LIMIT).decode("utf-8", "replace"))
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    refused = sorted(name for name in names if _plain(name) not in _HARMLESS | _OVERRIDDEN)
    if refused and environment.get(ACCEPT_VARIABLE) != "accept":
        raise ServerError(
            f"{path} sets options of llama.cpp that are not accepted: {', '.join(refused)}",
            hint=f"remove them there and pass them to one server after --, or accept them: {ACCEPT_VARIABLE}=accept",
        )
    taken = sorted(name for name in names if _plain(name) not in _OVERRIDDEN)
    return f"llama.cpp takes options from {path}: {', '.join(taken)}" if taken else None


def _options(text: str) -> set[str]:
    """Return the names of the options that llama.cpp applies."""
    section, found = "", set[str]()
    for line in re.split(r"\r\n|\n|\r", text):
        if header := _HEADER.match(line):
            section = header[1]
        elif (option := _OPTION.match(line)) and section in _APPLIED:
            found.add(option[1])
    return found


def _plain(name: str) -> str:
    """Return the name of an option; a file may also use the name of its environment variable."""
    prefix = "LLAMA_ARG_"
    return name[len(prefix) :].lower().replace("_", "-") if name.startswith(prefix) else name
