"""Identity of a launch: which running servers may stand in for the one that would be started.

Two digests: ``spec``, of everything that is launched, and ``answers``, of what decides the answer to a request. The
second covers the program, the model, the projector and the adapters (by size, modification time and inode of their
files), options of llama-server, and ``LLAMA_ARG_*`` variables that reach it. It leaves out where the server listens,
its name, keys, threads, and the options in ``_FLAGS`` and ``_VALUED``.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from llama_runner.core.short_sha256 import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llama_runner.serving.llama_server.launch_spec import ServerSpec

_FLAGS = (
    "--metrics --props --slots --no-slots -cb --cont-batching -nocb --no-cont-batching -kvu --kv-unified -no-kvu "
    "--no-kv-unified --mlock --mmap --no-mmap -dio --direct-io -ndio --no-direct-io --warmup --no-warmup --perf "
    "--no-perf --ui --no-ui --webui --no-webui -v --verbose --log-verbose --log-disable --log-prefix --no-log-prefix "
    "--log-timestamps --no-log-timestamps --offline --cache-prompt --no-cache-prompt --check-tensors -kvo "
    "--kv-offload -nkvo --no-kv-offload -cmoe --cpu-moe --op-offload --no-op-offload --cors-credentials "
    "--no-cors-credentials --reuse-port --cache-idle-slots --no-cache-idle-slots"
)
"""Options without a value that change no answer."""

_VALUED = (
    "-np --parallel -t --threads -tb --threads-batch --threads-http -C --cpu-mask -Cr --cpu-range -Cb "
    "--cpu-mask-batch -Crb --cpu-range-batch --cpu-strict --cpu-strict-batch --prio --prio-batch --poll --poll-batch "
    "-b --batch-size -ub --ubatch-size -fa --flash-attn -c --ctx-size -ngl --gpu-layers --n-gpu-layers -dev --device "
    "-sm --split-mode -ts --tensor-split -mg --main-gpu -fit --fit -fitt --fit-target -fitc --fit-ctx -ncmoe "
    "--n-cpu-moe -lm --load-mode --numa -cram --cache-ram -to --timeout --sse-ping-interval --sleep-idle-seconds "
    "--slot-save-path -sps --slot-prompt-similarity -a --alias --tags --api-prefix --path --cors-origins "
    "--cors-methods --cors-headers --ui-config --webui-config --ui-config-file --webui-config-file --log-file "
    "--log-colors -lv --verbosity --log-verbosity --log-prompts-dir"
)
"""Options with one value that change no answer, but for the rounding of floating-point numbers."""


OPTIONS = frozenset(f"{_FLAGS} {_VALUED}".split())
"""Options of llama-server that are known without asking the programs."""


def identity(spec: ServerSpec, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the registry says of a launch. ``environment`` is the server's own. No secret can be read from it."""
    return {"spec": spec.digest, "answers": _answers(spec, environment)}


def is_same_launch(about: Mapping[str, object], spec: ServerSpec, environment: Mapping[str, str]) -> bool:
    """Return whether an entry of the registry is of a server with exactly this spec, of the same files."""
    ours = identity(spec, environment)
    return about.get("spec") == ours["spec"] and about.get("answers", ours["answers"]) == ours["answers"]


def gives_same_answers(about: Mapping[str, object], spec: ServerSpec, environment: Mapping[str, str]) -> bool:
    """Return whether an entry of the registry is of a server that answers as one with this spec would."""
    return about.get("answers") == _answers(spec, environment)


def _answers(spec: ServerSpec, environment: Mapping[str, str]) -> str:
    files = (spec.binary, spec.model, spec.projector, *spec.adapters)
    variables = sorted(item for item in environment.items() if item[0].startswith("LLAMA_ARG_"))
    scales = [] if spec.has_usual_scales else [list(spec.adapter_scales)]
    what = [
        [_file(path) for path in files],
        [[word, _file(word)] for word in _deciding(spec.extra)],
        variables,
        *scales,
    ]
    return sha256(json.dumps(what).encode()).hexdigest()[:16]


def _deciding(words: Iterable[str]) -> list[str]:
    """Return the options and values that may change an answer; unknown options are among them."""
    left, found = list(words), []
    flags, valued = frozenset(_FLAGS.split()), frozenset(_VALUED.split())
    while left:
        word = left.pop(0)
        option = word.replace("_", "-") if word.startswith("--") else word
        if option in valued:
            left = left[1:]
        elif option not in flags:
            found.append(word)
    return found


def _file(path: Path | str | None) -> list[int] | str | None:
    """Return what identifies a file independently of its name; the text itself if there is no such file."""
    if path is None:
        return None
    if not os.path.isabs(path):  # noqa: PTH117 - an option's value; paths among them are absolute by now
        return str(path)
    try:
        found = os.stat(path)  # noqa: PTH116 - a word may be no path at all
    except (OSError, ValueError):
        return str(path)
    return [found.st_size, found.st_mtime_ns, found.st_ino]
