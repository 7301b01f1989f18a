"""Options of llama-server: spellings, kind of value, variable. Used where no programs are installed that list theirs.

A test compares the table with the llama-server of the pinned llama.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llama_runner.llama_cpp.capabilities import Capabilities

_TABLE = """
-h --help --usage
--version
-cl --cache-list
--completion-bash
-t --threads=N $LLAMA_ARG_THREADS
-tb --threads-batch=N
-C --cpu-mask=TEXT
-Cr --cpu-range=TEXT
--cpu-strict=TEXT
--prio=N
--poll=TEXT
-Cb --cpu-mask-batch=TEXT
-Crb --cpu-range-batch=TEXT
--cpu-strict-batch=TEXT
--prio-batch=N
--poll-batch=TEXT
-c --ctx-size=N $LLAMA_ARG_CTX_SIZE
-n --predict --n-predict=N $LLAMA_ARG_N_PREDICT
-b --batch-size=N $LLAMA_ARG_BATCH
-ub --ubatch-size=N $LLAMA_ARG_UBATCH
--keep=N
--swa-full $LLAMA_ARG_SWA_FULL
-fa --flash-attn=SWITCH $LLAMA_ARG_FLASH_ATTN
--perf --no-perf $LLAMA_ARG_PERF
-e --escape --no-escape
--rope-scaling=TEXT $LLAMA_ARG_ROPE_SCALING_TYPE
--rope-scale=N $LLAMA_ARG_ROPE_SCALE
--rope-freq-base=N $LLAMA_ARG_ROPE_FREQ_BASE
--rope-freq-scale=N $LLAMA_ARG_ROPE_FREQ_SCALE
--yarn-orig-ctx=N $LLAMA_ARG_YARN_ORIG_CTX
--yarn-ext-factor=N $LLAMA_ARG_YARN_EXT_FACTOR
--yarn-attn-factor=N $LLAMA_ARG_YARN_ATTN_FACTOR
--yarn-beta-slow=N $LLAMA_ARG_YARN_BETA_SLOW
--yarn-beta-fast=N $LLAMA_ARG_YARN_BETA_FAST
-kvo --kv-offload -nkvo --no-kv-offload $LLAMA_ARG_KV_OFFLOAD
--repack -nr --no-repack $LLAMA_ARG_REPACK
--no-host $LLAMA_ARG_NO_HOST
-ctk --cache-type-k=TEXT $LLAMA_ARG_CACHE_TYPE_K
-ctv --cache-type-v=TEXT $LLAMA_ARG_CACHE_TYPE_V
-dt --defrag-thold=N $LLAMA_ARG_DEFRAG_THOLD
--mlock $LLAMA_ARG_MLOCK
--mmap --no-mmap $LLAMA_ARG_MMAP
-dio --direct-io -ndio --no-direct-io $LLAMA_ARG_DIO
-lm --load-mode=TEXT $LLAMA_ARG_LOAD_MODE
--numa=TEXT $LLAMA_ARG_NUMA
-dev --device=TEXT $LLAMA_ARG_DEVICE
--list-devices
-ot --override-tensor=TEXT $LLAMA_ARG_OVERRIDE_TENSOR
-cmoe --cpu-moe $LLAMA_ARG_CPU_MOE
-ncmoe --n-cpu-moe=N $LLAMA_ARG_N_CPU_MOE
-ngl --gpu-layers --n-gpu-layers=N $LLAMA_ARG_N_GPU_LAYERS
-sm --split-mode=TEXT $LLAMA_ARG_SPLIT_MODE
-ts --tensor-split=TEXT $LLAMA_ARG_TENSOR_SPLIT
-mg --main-gpu=N $LLAMA_ARG_MAIN_GPU
-fit --fit=TEXT $LLAMA_ARG_FIT
-fitt --fit-target=TEXT $LLAMA_ARG_FIT_TARGET
-fitc --fit-ctx=N $LLAMA_ARG_FIT_CTX
--check-tensors
--override-kv=TEXT
--op-offload --no-op-offload
--lora=FILE
--lora-scaled=TEXT
--control-vector=FILE
--control-vector-scaled=TEXT
--control-vector-layer-range=TEXT,TEXT
-m --model=FILE $LLAMA_ARG_MODEL
-mu --model-url=TEXT $LLAMA_ARG_MODEL_URL
-dr --docker-repo=TEXT $LLAMA_ARG_DOCKER_REPO
-hf -hfr --hf-repo=TEXT $LLAMA_ARG_HF_REPO
-hff --hf-file=TEXT $LLAMA_ARG_HF_FILE
-hft --hf-token=TEXT $HF_TOKEN
--log-disable
--log-file=FILE $LLAMA_ARG_LOG_FILE
--log-colors=SWITCH $LLAMA_ARG_LOG_COLORS
-v --verbose --log-verbose
--offline $LLAMA_ARG_OFFLINE
-lv --verbosity --log-verbosity=N $LLAMA_ARG_LOG_VERBOSITY
--log-prefix --no-log-prefix $LLAMA_ARG_LOG_PREFIX
--log-timestamps --no-log-timestamps $LLAMA_ARG_LOG_TIMESTAMPS
--spec-draft-type-k -ctkd --cache-type-k-draft=TEXT $LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K
--spec-draft-type-v -ctvd --cache-type-v-draft=TEXT $LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V
--samplers=TEXT
-s --seed=N
--sampler-seq --sampling-seq=TEXT
--ignore-eos
--temp --temperature=N
--top-k=N $LLAMA_ARG_TOP_K
--top-p=N
--min-p=N
--top-nsigma --top-n-sigma=N
--xtc-probability=N
--xtc-threshold=N
--typical --typical-p=N
--repeat-last-n=N
--repeat-penalty=N
--presence-penalty=N
--frequency-penalty=N
--dry-multiplier=N
--dry-base=N
--dry-allowed-length=N
--dry-penalty-last-n=N
--dry-sequence-breaker=TEXT
--adaptive-target=N
--adaptive-decay=N
--dynatemp-range=N
--dynatemp-exp=N
--mirostat=N
--mirostat-lr=N
--mirostat-ent=N
-l --logit-bias=TEXT
--grammar=TEXT
--grammar-file=FILE
-j --json-schema=TEXT
-jf --json-schema-file=FILE
-bs --backend-sampling $LLAMA_ARG_BACKEND_SAMPLING
--spec-draft-hf -hfd -hfrd --hf-repo-draft=TEXT $LLAMA_ARG_SPEC_DRAFT_HF_REPO
--spec-draft-threads -td --threads-draft=N
--spec-draft-threads-batch -tbd --threads-batch-draft=N
--spec-draft-cpu-mask -Cd --cpu-mask-draft=TEXT
--spec-draft-cpu-range -Crd --cpu-range-draft=TEXT
--spec-draft-cpu-strict --cpu-strict-draft=TEXT
--spec-draft-prio --prio-draft=N
--spec-draft-poll --poll-draft=TEXT
--spec-draft-cpu-mask-batch -Cbd --cpu-mask-batch-draft=TEXT
--spec-draft-cpu-strict-batch --cpu-strict-batch-draft=TEXT
--spec-draft-prio-batch --prio-batch-draft=N
--spec-draft-poll-batch --poll-batch-draft=TEXT
--spec-draft-override-tensor -otd --override-tensor-draft=TEXT
--spec-draft-cpu-moe -cmoed --cpu-moe-draft $LLAMA_ARG_SPEC_DRAFT_CPU_MOE
--spec-draft-n-cpu-moe --spec-draft-ncmoe -ncmoed --n-cpu-moe-draft=N $LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE
--spec-draft-n-max=N $LLAMA_ARG_SPEC_DRAFT_N_MAX
--spec-draft-n-min=N $LLAMA_ARG_SPEC_DRAFT_N_MIN
--spec-draft-p-split --draft-p-split=N $LLAMA_ARG_SPEC_DRAFT_P_SPLIT
--spec-draft-p-min --draft-p-min=N $LLAMA_ARG_SPEC_DRAFT_P_MIN
--spec-draft-backend-sampling --no-spec-draft-backend-sampling $LLAMA_ARG_SPEC_DRAFT_BACKEND_SAMPLING
--spec-draft-device -devd --device-draft=TEXT
--spec-draft-ngl -ngld --gpu-layers-draft --n-gpu-layers-draft=N $LLAMA_ARG_N_GPU_LAYERS_DRAFT
--spec-draft-model -md --model-draft=FILE $LLAMA_ARG_SPEC_DRAFT_MODEL
--spec-type=TEXT $LLAMA_ARG_SPEC_TYPE
--spec-ngram-mod-n-min=N
--spec-ngram-mod-n-max=N
--spec-ngram-mod-n-match=N
--spec-ngram-simple-size-n=N
--spec-ngram-simple-size-m=N
--spec-ngram-simple-min-hits=N
--spec-ngram-map-k-size-n=N
--spec-ngram-map-k-size-m=N
--spec-ngram-map-k-min-hits=N
--spec-ngram-map-k4v-size-n=N
--spec-ngram-map-k4v-size-m=N
--spec-ngram-map-k4v-min-hits=N
--draft --draft-n --draft-max=REMOVED $LLAMA_ARG_DRAFT_MAX
--draft-min --draft-n-min=REMOVED $LLAMA_ARG_DRAFT_MIN
--spec-ngram-size-n=REMOVED
--spec-ngram-size-m=REMOVED
--spec-ngram-min-hits=REMOVED
-lcs --lookup-cache-static=FILE
-lcd --lookup-cache-dynamic=FILE
-ctxcp --ctx-checkpoints --swa-checkpoints=N $LLAMA_ARG_CTX_CHECKPOINTS
-cms --checkpoint-min-step=N $LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT
-cram --cache-ram=N $LLAMA_ARG_CACHE_RAM
-kvu --kv-unified -no-kvu --no-kv-unified $LLAMA_ARG_KV_UNIFIED
--cache-idle-slots --no-cache-idle-slots $LLAMA_ARG_CACHE_IDLE_SLOTS
--context-shift --no-context-shift $LLAMA_ARG_CONTEXT_SHIFT
-r --reverse-prompt=TEXT
-sp --special
--warmup --no-warmup
--spm-infill
--pooling=TEXT $LLAMA_ARG_POOLING
-np --parallel=N $LLAMA_ARG_N_PARALLEL
-cb --cont-batching -nocb --no-cont-batching $LLAMA_ARG_CONT_BATCHING
-mm --mmproj=FILE $LLAMA_ARG_MMPROJ
-mmu --mmproj-url=TEXT $LLAMA_ARG_MMPROJ_URL
--mmproj-auto --no-mmproj --no-mmproj-auto $LLAMA_ARG_MMPROJ_AUTO
--mmproj-offload --no-mmproj-offload $LLAMA_ARG_MMPROJ_OFFLOAD
-mmdev --mmproj-device=TEXT $MTMD_BACKEND_DEVICE
--image-min-tokens=N $LLAMA_ARG_IMAGE_MIN_TOKENS
--image-max-tokens=N $LLAMA_ARG_IMAGE_MAX_TOKENS
--mtmd-batch-max-tokens=N $LLAMA_ARG_MTMD_BATCH_MAX_TOKENS
-a --alias=TEXT $LLAMA_ARG_ALIAS
--tags=TEXT $LLAMA_ARG_TAGS
--embd-normalize=N
--host=TEXT $LLAMA_ARG_HOST
--port=N $LLAMA_ARG_PORT
--reuse-port $LLAMA_ARG_REUSE_PORT
--path=FILE $LLAMA_ARG_STATIC_PATH
--cors-origins=TEXT $LLAMA_ARG_CORS_ORIGINS
--cors-methods=TEXT $LLAMA_ARG_CORS_METHODS
--cors-headers=TEXT $LLAMA_ARG_CORS_HEADERS
--cors-credentials --no-cors-credentials $LLAMA_ARG_CORS_CREDENTIALS
--api-prefix=TEXT $LLAMA_ARG_API_PREFIX
--ui-config --webui-config=TEXT $LLAMA_ARG_UI_CONFIG
--ui-config-file --webui-config-file=FILE $LLAMA_ARG_UI_CONFIG_FILE
--ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy $LLAMA_ARG_UI_MCP_PROXY
--tools=TEXT $LLAMA_ARG_TOOLS
--tools-runtime=TEXT $LLAMA_ARG_TOOLS_RUNTIME
--mcp-servers-config=FILE $LLAMA_ARG_MCP_SERVERS_CONFIG
--mcp-servers-json=TEXT $LLAMA_ARG_MCP_SERVERS_JSON
-ag --agent -no-ag --no-agent $LLAMA_ARG_AGENT
--ui --webui --no-ui --no-webui $LLAMA_ARG_UI
--embedding --embeddings $LLAMA_ARG_EMBEDDINGS
--rerank --reranking $LLAMA_ARG_RERANKING
--api-key=TEXT $LLAMA_API_KEY
--api-key-file=FILE $LLAMA_ARG_API_KEY_FILE
--ssl-key-file=FILE $LLAMA_ARG_SSL_KEY_FILE
--ssl-cert-file=FILE $LLAMA_ARG_SSL_CERT_FILE
--chat-template-kwargs=TEXT $LLAMA_ARG_CHAT_TEMPLATE_KWARGS
-to --timeout=N $LLAMA_ARG_TIMEOUT
--sse-ping-interval=N $LLAMA_ARG_SSE_PING_INTERVAL
--threads-http=N $LLAMA_ARG_THREADS_HTTP
--cache-prompt --no-cache-prompt $LLAMA_ARG_CACHE_PROMPT
--cache-reuse=N $LLAMA_ARG_CACHE_REUSE
--metrics $LLAMA_ARG_ENDPOINT_METRICS
--props $LLAMA_ARG_ENDPOINT_PROPS
--slots --no-slots $LLAMA_ARG_ENDPOINT_SLOTS
--slot-save-path=FILE
--media-path=FILE
--models-dir=FILE $LLAMA_ARG_MODELS_DIR
--models-preset=FILE $LLAMA_ARG_MODELS_PRESET
--models-max=N $LLAMA_ARG_MODELS_MAX
--models-autoload --no-models-autoload $LLAMA_ARG_MODELS_AUTOLOAD
--jinja --no-jinja $LLAMA_ARG_JINJA
--reasoning-format=TEXT $LLAMA_ARG_THINK
-rea --reasoning=SWITCH $LLAMA_ARG_REASONING
--reasoning-effort=TEXT $LLAMA_ARG_REASONING_EFFORT
--reasoning-budget=N $LLAMA_ARG_THINK_BUDGET
--reasoning-budget-message=TEXT $LLAMA_ARG_THINK_BUDGET_MESSAGE
--reasoning-preserve --no-reasoning-preserve $LLAMA_ARG_REASONING_PRESERVE
--chat-template=TEXT $LLAMA_ARG_CHAT_TEMPLATE
--chat-template-file=FILE $LLAMA_ARG_CHAT_TEMPLATE_FILE
--skip-chat-parsing --no-skip-chat-parsing $LLAMA_ARG_SKIP_CHAT_PARSING
--prefill-assistant --no-prefill-assistant $LLAMA_ARG_PREFILL_ASSISTANT
-sps --slot-prompt-similarity=N
--lora-init-without-apply
--sleep-idle-seconds=N
--log-prompts-dir=FILE
--embd-gemma-default
--fim-qwen-1.5b-default
--fim-qwen-3b-default
--fim-qwen-7b-default
--fim-qwen-7b-spec
--fim-qwen-14b-spec
--fim-qwen-30b-default
--gpt-oss-20b-default
--gpt-oss-120b-default
--vision-gemma-4b-default
--vision-gemma-12b-default
--spec-default
"""
"""One option a line: all spellings, ``=`` and its value (nothing for a flag), ``$`` and its environment variable."""

_KINDS = {
    "": "none",
    "N": "number",
    "TEXT": "word",
    "FILE": "file",
    "SWITCH": "switch",
    "TEXT,TEXT": "pair",
    "REMOVED": "removed",
}
_SWITCH = frozenset(("on", "off", "auto"))
_RENAMED = {
    "--draft-max": "--spec-draft-n-max",
    "--draft-n": "--spec-draft-n-max",
    "--draft": "--spec-draft-n-max",
    "--draft-min": "--spec-draft-n-min",
    "--draft-n-min": "--spec-draft-n-min",
    "--slots-endpoint-disable": "--no-slots",
}
"""Options that are gone, and what they are called now."""


class ServerFlag(Value):
    """One option of llama-server."""

    names: tuple[str, ...]
    """All spellings."""
    kind: str = "none"
    """``none``, ``number``, ``word``, ``file``, ``switch``: on, off or auto, ``pair``: two words, or ``removed``."""
    variable: str | None = None

    @property
    def key(self) -> str:
        """The name without dashes: the first long one, as later versions put a new name in front."""
        return next((name for name in self.names if name.startswith("--")), self.names[0]).lstrip("-")

    @property
    def negations(self) -> frozenset[str]:
        """The spellings that switch it off."""
        long = [name for name in self.names if name.startswith("--")]
        if all(name.startswith("--no-") for name in long) or not any(name.startswith("--no-") for name in long):
            return frozenset()
        first = next(at for at, name in enumerate(self.names) if name.startswith("--no-"))
        while first and not self.names[first - 1].startswith("--"):
            first -= 1
        return frozenset(self.names[first:])


class ServerFlags:
    """The options of one llama-server."""

    def __init__(self, flags: Iterable[ServerFlag]) -> None:
        self._by_name: dict[str, ServerFlag] = {}
        self._by_variable: dict[str, tuple[ServerFlag, bool]] = {}
        for flag in flags:
            for name in flag.names:
                self._by_name.setdefault(name, flag)
            if flag.variable:
                self._by_variable.setdefault(flag.variable, (flag, True))
                if flag.negations:
                    self._by_variable.setdefault(flag.variable.replace("LLAMA_ARG_", "LLAMA_ARG_NO_", 1), (flag, False))

    def __iter__(self) -> Iterator[ServerFlag]:
        return iter(dict.fromkeys(self._by_name.values()))

    def find(self, name: str) -> tuple[ServerFlag, str] | None:
        """Return the option with a spelling, and the spelling that it has now; ``--api_key`` equals ``--api-key``."""
        name = _RENAMED.get(name := _canonical(name), name)
        flag = self._by_name.get(name)
        return None if flag is None else (flag, name)

    def find_key(self, key: str) -> tuple[ServerFlag, str] | None:
        """Return the option that a name without dashes stands for, as in an INI file: ``c``, ``ctx-size``."""
        bare = key.lstrip("-")
        return next(filter(None, map(self.find, (f"--{bare}", f"-{bare}"))), None)

    def find_variable(self, name: str) -> tuple[ServerFlag, bool] | None:
        """Return the option that a variable sets, and whether it switches it on."""
        return self._by_variable.get(name)

    def takes(self, name: str) -> int | None:
        """Return how many values an option takes; None for one that is not known."""
        found = self.find(name)
        return None if found is None else {"none": 0, "pair": 2}.get(found[0].kind, 1)


def server_flags(capabilities: Capabilities | None = None) -> ServerFlags:
    """Return the options of installed programs, and of the pinned llama.cpp where they lack one."""
    installed = []
    for flag in capabilities.flags if capabilities else ():
        kind = "switch" if set(flag.choices) == _SWITCH else {"choice": "word"}.get(flag.kind, flag.kind)
        kind = "word" if flag.names[-1] == "--hf-file" else kind
        installed.append(ServerFlag(flag.names, "removed" if flag.removed else kind, flag.env))
    return ServerFlags([*installed, *map(_parsed, _TABLE.split("\n")[1:-1])])


def _parsed(line: str) -> ServerFlag:
    words, _, variable = line.partition(" $")
    names, _, value = words.partition("=")
    return ServerFlag(tuple(names.split()), _KINDS[value], variable or None)


def _canonical(name: str) -> str:
    return "--" + name[2:].replace("_", "-") if name.startswith("--") else name
