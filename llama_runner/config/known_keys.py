"""The keys of the configuration file, by table. Options of ``run`` are keys too, by their names in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value, field
from llama_runner.core.option_definition import Option
from llama_runner.request.lifecycle_options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping


_FOR_ONE_CALL = frozenset(
    (
        *("force", "force_step", "update", "fresh_tools", "locked", "lock_file", "lock_timeout"),
        *("root", "as_json", "config", "detach"),
    )
)
"""Options that say what one call does, and nothing about a model."""
SOURCES = ("hf_model", "gguf_path", "safetensors_dir", "demo")
"""Options that name the model, instead of ``source``."""


def _keys(*options: Option) -> dict[str, Option]:
    return {option.name: option for option in options}


_RENAMED = {"source": "llama_cpp_source"}
"""Options whose name is another key here."""
MODEL_OPTIONS = {_RENAMED.get(each.name, each.name): each for each in OPTIONS if each.name not in _FOR_ONE_CALL}
"""Options of ``run`` that a model of the file may have, by key."""
MODEL_OPTIONS["projector"] = MODEL_OPTIONS["projector"].replace(
    help="Load the multimodal projector (mmproj) of a vision model.", default_text="true"
)  # the flag says the opposite
MODEL_OPTIONS["check"] = MODEL_OPTIONS["check"].replace(
    help="Compare tokens and template of a converted model with its original.", default_text="true"
)
OPTION_OF = {option.name: option for option in MODEL_OPTIONS.values()}
"""The same by ``Option.name``."""
SHARED_OPTIONS = {name: option for name, option in MODEL_OPTIONS.items() if name not in SOURCES}
"""Of these, the ones that several models may share."""

SAMPLING = {
    "temperature": "temp",
    "top_k": "top-k",
    "top_p": "top-p",
    "min_p": "min-p",
    "typical_p": "typical",
    "top_n_sigma": "top-nsigma",
    "xtc_probability": "xtc-probability",
    "xtc_threshold": "xtc-threshold",
    "repeat_penalty": "repeat-penalty",
    "repeat_last_n": "repeat-last-n",
    "presence_penalty": "presence-penalty",
    "frequency_penalty": "frequency-penalty",
    "dry_multiplier": "dry-multiplier",
    "dry_base": "dry-base",
    "dry_allowed_length": "dry-allowed-length",
    "dry_penalty_last_n": "dry-penalty-last-n",
    "dynatemp_range": "dynatemp-range",
    "dynatemp_exponent": "dynatemp-exp",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat-ent",
    "mirostat_eta": "mirostat-lr",
    "seed": "seed",
    "n_predict": "predict",
}
"""Keys of ``sampling``, named as in requests to llama-server, and the option of llama-server that sets the default."""
SAMPLING_FLAGS = {flag: name for name, flag in SAMPLING.items()} | {
    "temperature": "temperature",
    "typical-p": "typical_p",
    "top-n-sigma": "top_n_sigma",
    "n-predict": "n_predict",
}

NAME = Option("name", (), "model", "Name of the model.")

_OF_MODELS = (
    Option("preset", (), "server", "Preset that the model takes its options from.", metavar="NAME"),
    Option("system", (), "server", "System prompt of requests that have none."),
    Option("pin", (), "life cycle", "Keep the model loaded.", kind="flag", default=False),
    Option("ttl", (), "life cycle", "Unload the model after this time without a request; 0: never.", kind="duration"),
    Option("preload", (), "life cycle", "Load the model when the gateway starts.", kind="flag", default=False),
    Option("hidden", (), "life cycle", "Leave the model out of lists; it answers all the same.", kind="flag"),
    Option(
        "sessions",
        (),
        "life cycle",
        "Keep conversations over a restart of the model; true, or a table (below).",
        kind="flag",
        default=False,
    ),
    Option(
        "max_ctx_size",
        (),
        "server",
        "Context to grow to when a client asks for more (num_ctx).",
        kind="integer",
        least=1,
    ),
    Option("fallback", (), "life cycle", "Models that answer where this one cannot be loaded.", kind="list"),
)

SESSIONS = _keys(
    Option("quota", (), "life cycle", "Size of the saved KV caches of the model on disk.", kind="size", default="10G"),
    Option("idle", (), "life cycle", "Save a session after this time without a request.", kind="duration", default=30),
    Option(
        "directory",
        (),
        "life cycle",
        "Directory of the sessions.",
        kind="directory",
        default_text="below the root",
    ),
    Option("encryption_key", (), "access", "File with a key of 32 bytes that encrypts them.", kind="file"),
)
"""Keys of the table ``sessions``. ``sessions = true`` is a table of defaults."""

_NAMING = (
    Option("source", (), "model", "The model: whatever `llama-runner run` takes.", metavar="MODEL"),
    Option("aliases", (), "model", "Further names of the model.", kind="list"),
)

VARIANT = _keys(
    Option("aliases", (), "model", "Further names of the variant.", kind="list"),
    Option("hidden", (), "life cycle", "Leave the variant out of lists.", kind="flag"),
    Option("system", (), "server", "System prompt of requests that have none."),
)

ADAPTER = _keys(
    Option("path", (), "model", "The LoRA adapter: a GGUF file or a PEFT directory.", kind="file"),
    Option("source", (), "model", "The LoRA adapter: whatever `--lora` takes; instead of `path`.", metavar="ADAPTER"),
    Option("scale", (), "model", "Factor of the adapter.", kind="number", default=1.0),
)

MEMORY = _keys(
    Option("host", (), "server", "Memory for models, of this machine.", kind="share"),
    Option("device", (), "server", "Memory for models, of each device.", kind="share"),
    Option("prompt_cache", (), "server", "Memory for the prompt caches of all models together.", kind="size"),
)

GATEWAY = _keys(
    Option("listen", (), "access", "Addresses to listen on: HOST:PORT, or the path of a UNIX socket.", kind="list"),
    Option("allow_pull", (), "access", "Names that a request may download, with * for any text.", kind="list"),
    Option("max_pull", (), "access", "The largest download that a request may start.", kind="size"),
    Option("store", (), "model", "Serve the models of the store too.", kind="flag", default=False),
    Option("api_key_file", (), "access", "File with the keys that are accepted, one a line.", kind="file"),
    Option("limits_file", (), "access", "File with the limits of each key.", kind="file"),
    Option("insecure", (), "access", "Let other machines use the gateway without a key.", kind="flag", default=False),
    Option("fetch_images", (), "access", "Fetch images from the addresses in requests.", kind="flag", default=False),
    Option("log_prompts", (), "output", "Write prompts and answers to the log.", kind="flag", default=False),
    Option("tls_cert", (), "access", "Certificate to serve HTTPS with, as PEM.", kind="file"),
    Option("tls_key", (), "access", "Private key of the certificate, as PEM.", kind="file"),
    Option("queue", (), "server", "Requests that may wait for one model.", kind="integer", least=1),
    Option("max_wait", (), "server", "How long a request may wait for its model.", kind="duration"),
)

STORE = _keys(
    Option("remote_store", (), "pipeline", "Store of artifacts that other machines made.", metavar="DIR|URL"),
    Option("remote_push", (), "pipeline", "Put into it what it does not have yet.", kind="flag", default=False),
    Option("older_than", (), "pipeline", "What `gc` keeps: what was used in this time.", kind="duration"),
    Option("max_size", (), "pipeline", "Size of the store that `gc` deletes models above.", kind="size"),
)

FILE = _keys(
    Option("include", (), "output", "Further files to read, relative to this one.", kind="list"),
    Option("environment", (), "output", "Environment variables that values may use as ${NAME}.", kind="list"),
)


class Section(Value):
    """What a table may hold."""

    keys: Mapping[str, Option] = field(default_factory=dict)
    tables: Mapping[str, Section] = field(default_factory=dict)
    """Tables with a fixed name. One that is a key too is a value or a table."""
    named: Section | None = None
    """What a table of any other name holds; None where there is none."""
    free: str = ""
    """Where the keys are not ours: ``llama``, options of llama-server; ``template``, arguments of the chat template;
    ``sampling``, numbers."""


_FREE = {name: Section(free=name) for name in ("llama", "sampling", "template")}
_REQUESTS = {name: _FREE[name] for name in ("sampling", "template")}
_OF_SETTINGS = {**_FREE, "sessions": Section(SESSIONS)}
_SHARED = {**SHARED_OPTIONS, **_keys(*_OF_MODELS)}

ROOT = Section(
    FILE,
    {
        "defaults": Section(_SHARED, _OF_SETTINGS),
        "models": Section(
            named=Section(
                {**_keys(*_NAMING), **MODEL_OPTIONS, **_keys(*_OF_MODELS)},
                {
                    **_OF_SETTINGS,
                    "adapters": Section(named=Section(ADAPTER)),
                    "variants": Section(named=Section(VARIANT, _REQUESTS)),
                },
            )
        ),
        "presets": Section(named=Section(_SHARED, _OF_SETTINGS)),
        "gateway": Section(GATEWAY, {"memory": Section(MEMORY)}),
        "store": Section(STORE),
    },
)
"""The whole file."""
