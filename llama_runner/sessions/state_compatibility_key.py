"""The key of a session's state: everything that decides whether a KV cache fits a process. Pure.

llama-server compares only the number of layers, types and sizes of rows: it restores the state of another model of the
same shape, and answers with it.
"""

from __future__ import annotations

import hashlib
import json
import re

from llama_runner.core.immutable_values import Value

_OF_SPEED_AND_ACCESS = frozenset(
    (  # noqa: SIM905 - a hundred words
        "--cache-ram -cram --cache-idle-slots --no-cache-idle-slots --cont-batching -cb --no-cont-batching "
        "--threads-http --threads-batch -tb --batch-size -b --ubatch-size -ub --cpu-mask -C --cpu-range -Cr "
        "--cpu-strict --prio --poll --mlock --mmap --no-mmap --numa --gpu-layers -ngl --n-gpu-layers --split-mode -sm "
        "--tensor-split -ts --main-gpu -mg --device -dev --override-tensor -ot --cpu-moe -cmoe --n-cpu-moe -ncmoe "
        "--fit --fit-target --fit-ctx --no-webui --webui --no-ui --ui --offline --metrics --props --slots --no-slots "
        "--slot-save-path --slot-prompt-similarity -sps --timeout -to --api-prefix --cors-origins --verbose -v "
        "--log-file --log-colors --log-prefix --log-timestamps --verbosity -lv --log-disable --alias -a --tags "
        "--no-warmup --warmup --check-tensors --repack --no-repack --no-host --op-offload --no-op-offload "
        "--kv-offload --no-kv-offload -nkvo --ctx-checkpoints -ctxcp --swa-checkpoints --sleep-idle-seconds "
        "--reasoning-format --reasoning-budget --temp --temperature --top-k --top-p --min-p --typical --typical-p "
        "--top-nsigma --top-n-sigma --xtc-probability --xtc-threshold --repeat-penalty --repeat-last-n "
        "--presence-penalty --frequency-penalty --dry-multiplier --dry-base --dry-allowed-length --dry-penalty-last-n "
        "--dynatemp-range --dynatemp-exp --mirostat --mirostat-ent --mirostat-lr --seed -s --samplers --sampler-seq "
        "--predict -n --n-predict --ignore-eos --keep --grammar --json-schema -j"
    ).split()
)
"""Options of llama-server that change no KV cache. Every other one is part of the key."""
_NUMBER = re.compile(r"-?[\d.]")


class StateParts(Value):
    """What the key of a state is made of."""

    model: str
    """Digest of the model."""
    build: str
    """What llama.cpp's programs are: version, build, backend."""
    projector: str = ""
    """Digest of the multimodal projector."""
    adapters: tuple[tuple[str, str], ...] = ()
    """Digest and scale (as text) of each LoRA adapter, in the order of the process."""
    template: str = ""
    """The chat template."""
    options: tuple[str, ...] = ()
    """Options of llama-server that change the KV cache: its types, ``--swa-full``, RoPE, …"""

    def with_adapters(self, adapters: tuple[tuple[str, str], ...]) -> StateParts:
        """Return the parts of a request that is answered with these adapters of the process."""
        return self.replace(adapters=adapters)


def state_key(parts: StateParts) -> str:
    """Return the key: ``s1:`` and the SHA-256 of the canonical JSON of the parts."""
    text = json.dumps(parts.__dict__, sort_keys=True, separators=(",", ":"))
    return "s1:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def options_of_state(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options of llama-server that are part of the key, each with its values, in one order."""
    found: list[list[str]] = []
    for word in words:
        if word.startswith("-") and not _NUMBER.match(word):
            name, equals, value = word.partition("=")
            found.append([name.replace("_", "-") if name.startswith("--") else name, *([value] if equals else [])])
        elif found:
            found[-1].append(word)
    return tuple(sorted(" ".join(option) for option in found if option[0] not in _OF_SPEED_AND_ACCESS))
