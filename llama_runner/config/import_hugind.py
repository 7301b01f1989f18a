"""Imports Hugind's configuration of a server, of both of its generations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.config.import_options import name_of
from llama_runner.config.import_report import ImportFailed
from llama_runner.config.import_yaml import YamlNode, read_yaml
from llama_runner.config.imported_model import KEY_FILE
from llama_runner.core.csv_option_values import format_row

if TYPE_CHECKING:
    from llama_runner.config.import_options import ModelDraft
    from llama_runner.config.imported_configuration import Context

NAME = "hugind"

_FLAGS = {
    "server": {"max_slots": "--parallel", "embeddings": "--embeddings", "verbose": "--verbose"},
    "model": {
        "gpu_layers": "--gpu-layers",
        "n_gpu_layers": "--gpu-layers",
        "mmproj_path": "--mmproj",
        "split_mode": "--split-mode",
        "main_gpu": "--main-gpu",
        "tensor_split": "--tensor-split",
        "devices": "--device",
        "tensor_buft_overrides": "--override-tensor",
        "kv_overrides": "--override-kv",
        "use_mmap": "--mmap",
        "use_direct_io": "--direct-io",
        "use_mlock": "--mlock",
        "check_tensors": "--check-tensors",
        "use_extra_bufts": "--repack",
        "no_host": "--no-host",
    },
    "context": {
        **dict.fromkeys(("size", "n_ctx"), "--ctx-size"),
        **dict.fromkeys(("batch_size", "n_batch"), "--batch-size"),
        **dict.fromkeys(("ubatch_size", "n_ubatch"), "--ubatch-size"),
        **dict.fromkeys(("seq_max", "n_seq_max"), "--parallel"),
        "threads": "--threads",
        "threads_batch": "--threads-batch",
        "rope_scaling_type": "--rope-scaling",
        "pooling_type": "--pooling",
        "flash_attn_type": "--flash-attn",
        "rope_freq_base": "--rope-freq-base",
        "rope_freq_scale": "--rope-freq-scale",
        "yarn_ext_factor": "--yarn-ext-factor",
        "yarn_attn_factor": "--yarn-attn-factor",
        "yarn_beta_fast": "--yarn-beta-fast",
        "yarn_beta_slow": "--yarn-beta-slow",
        "yarn_orig_ctx": "--yarn-orig-ctx",
        "cache_type_k": "--cache-type-k",
        "cache_type_v": "--cache-type-v",
        "offload_kqv": "--kv-offload",
        "kv_unified": "--kv-unified",
        "swa_full": "--swa-full",
        "op_offload": "--op-offload",
        "embeddings": "--embeddings",
    },
    "multimodal": {
        "mmproj_offload": "--mmproj-offload",
        "image_min_tokens": "--image-min-tokens",
        "image_max_tokens": "--image-max-tokens",
    },
    "sampling": {
        "temp": "--temp",
        "typical_p": "--typical",
        "top_n_sigma": "--top-nsigma",
        "dynatemp_range": "--dynatemp-range",
        "dynatemp_exp": "--dynatemp-exp",
        "mirostat_lr": "--mirostat-lr",
        "mirostat_ent": "--mirostat-ent",
        "adaptive_target": "--adaptive-target",
        "adaptive_decay": "--adaptive-decay",
        "dry_sequence_breakers": "--dry-sequence-breaker",
        "grammar": "--grammar",
        **{
            name: f"--{name.replace('_', '-')}"
            for name in [
                "seed",
                "top_k",
                "top_p",
                "min_p",
                "repeat_last_n",
                "repeat_penalty",
                "frequency_penalty",
                "presence_penalty",
                "dry_multiplier",
                "dry_base",
                "dry_allowed_length",
                "dry_penalty_last_n",
                "xtc_probability",
                "xtc_threshold",
                "mirostat",
            ]
        },
    },
    "chat": {"thinking_budget_tokens": "--reasoning-budget"},
    "fit": {"target_mib": "--fit-target", "min_ctx": "--fit-ctx"},
    "advanced": {"numa": "--numa", "warmup": "--warmup"},
}
"""Options of llama-server that a key of a section is."""
_FLAGS["server"]["thinking_budget_tokens"] = "--reasoning-budget"

_UNSET: dict[str, tuple[Any, ...]] = {
    "seed": (4294967295, -1),
    **dict.fromkeys(("rope_freq_base", "rope_freq_scale", "yarn_orig_ctx", "image_min_tokens", "min_ctx"), (0,)),
    **dict.fromkeys(("image_max_tokens", "main_gpu", "mirostat"), (0,)),
    **dict.fromkeys(("yarn_ext_factor", "top_n_sigma", "adaptive_target", "defrag_thold"), (-1,)),
    **dict.fromkeys(("rope_scaling_type", "pooling_type", "attention_type"), ("unspecified",)),
    **dict.fromkeys(("use_mmap", "use_extra_bufts", "offload_kqv", "op_offload", "mmproj_offload", "warmup"), (True,)),
    "flash_attn_type": ("auto",),
}
"""Values that say that a key is not set, or what llama-server does anyway; and false for flags without a negation."""
_QUANTIZE = "llama-runner quantize makes quantized models"
_NOTES = {
    "concurrency": "one server with several slots, max_slots, takes the place of several",
    "library_path": "llama-runner has programs of its own",
    "system_prompt_file": "other files are not read; write its text as system",
    "session_home": "the store keeps sessions; sessions = true for a model",
    "unified_memory_mode": "there is no counterpart",
    "format": "the template of the model counts",
    "attention_type": "llama-server has no such option",
    "vocab_only": "such a model answers nothing",
    "logit_bias": "write it as llama = { logit-bias = … }",
    "defrag_thold": "llama-server has no use for it any more",
}


def looks_like(node: YamlNode) -> bool:
    """Return whether a YAML document is one of Hugind."""
    model = node.get("model")
    return model is not None and model.get("path") is not None


def import_hugind(text: str, context: Context) -> None:
    """Import a file: one model."""
    node = read_yaml(text, NAME)
    if not looks_like(node):
        raise ImportFailed(NAME, "there is no model.path")
    draft = context.draft("here")
    model = node.get("model") or YamlNode({}, 1)
    for section, each in node.items():
        if section == "quantize":
            draft.skip(each.line, "quantize: …", _QUANTIZE)
            continue
        if not isinstance(each.value, dict):
            draft.skip(each.line, each.shown(section), "there is no counterpart")
            continue
        for key, value in each.items():
            read = getattr(_Takes, f"{section}_{key}", None)
            if read is not None:
                read(draft, value, context)
            else:
                _take(draft, section, key, value, context)
    named, path = model.get("name"), model.get("path")
    assert path is not None
    stem = context.file_name.rpartition(".")[0]
    own = "" if stem.lower() in ("config", "settings", "") else stem
    name = context.name or (named.text if named else "") or own or name_of(path.text)
    context.finish(draft, name, line=1)


def _take(draft: ModelDraft, section: str, key: str, node: YamlNode, context: Context) -> None:
    text, value = f"{section}: {node.shown(key)}", node.plain()
    flag = _FLAGS.get(section, {}).get(key)
    if flag is None:
        note = _NOTES.get(key, "there is no counterpart")
        draft.skip(node.line, text, note, "not needed" if _is_empty(value) else "not taken")
        return
    if _is_empty(value) or value in _UNSET.get(key, ()):
        draft.skip(node.line, text, "the default", "not needed")
        return
    found = context.flags.find(flag)
    if found is None:
        draft.skip(node.line, text, "llama-server has no such option")
    elif key == "dry_sequence_breakers":
        for each in node.elements():
            draft.take(each.line, found, [each.text], text)
    elif isinstance(value, list):
        draft.take(node.line, found, [",".join(each.text for each in node.elements())], text)
    elif isinstance(value, bool) and found[0].kind == "none":
        draft.take_switchable(node.line, text, found, "true" if value else "false")
    else:
        draft.take(node.line, found, [node.text], text)


def _is_empty(value: object) -> bool:
    return value is None or value in ("", [], {})


class _Takes:
    """Handlers of the keys that are not options of llama-server."""

    @staticmethod
    def server_host(draft: ModelDraft, node: YamlNode, context: Context) -> None:
        if node.text == "0.0.0.0":  # noqa: S104 - what is imported
            draft.skip(node.line, "server: host: 0.0.0.0", "127.0.0.1 unless host is set, with api_key_file")
        elif found := context.flags.find("--host"):
            draft.take(node.line, found, [node.text], f"server: host: {node.text}")

    @staticmethod
    def server_port(draft: ModelDraft, node: YamlNode, context: Context) -> None:
        if found := context.flags.find("--port"):
            draft.take(node.line, found, [node.text], f"server: port: {node.text}")

    @staticmethod
    def server_api_key(_draft: ModelDraft, node: YamlNode, context: Context) -> None:
        if node.text:
            context.report.secret(node.line, "server: api_key:", [node.text], KEY_FILE)

    @staticmethod
    def server_timeout_seconds(draft: ModelDraft, node: YamlNode, _context: Context) -> None:
        if isinstance(node.value, int) and not isinstance(node.value, bool) and node.value > 0:
            draft.put(node.line, f"server: timeout_seconds: {node.value}", ("ttl",), f"{node.value}s")

    @staticmethod
    def server_system_prompt(draft: ModelDraft, node: YamlNode, _context: Context) -> None:
        if node.text.strip():
            draft.put(node.line, f"server: system_prompt: {node.text}", ("system",), node.text)

    @staticmethod
    def server_enable_thinking_default(draft: ModelDraft, node: YamlNode, _context: Context) -> None:
        if isinstance(node.value, bool):
            text = f"enable_thinking_default: {node.text}"
            draft.put(node.line, text, ("template", "enable_thinking"), node.value)

    chat_enable_thinking_default = server_enable_thinking_default

    @staticmethod
    def model_path(draft: ModelDraft, node: YamlNode, context: Context) -> None:
        if node.text.startswith("@"):
            draft.left_out = "model.path is a placeholder"
        elif node.text:
            draft.put(node.line, f"model: path: {node.text}", ("source",), context.paths().source(node.text))

    @staticmethod
    def model_name(draft: ModelDraft, node: YamlNode, _context: Context) -> None:
        draft.skip(node.line, f"model: name: {node.text}", "the name of the model", "not needed")

    @staticmethod
    def context_flash_attention(draft: ModelDraft, node: YamlNode, _context: Context) -> None:
        if node.value is True:
            draft.put(node.line, "context: flash_attention: true", ("llama", "flash-attn"), "on")
        else:
            note = "llama-server decides; a quantized KV cache needs it"
            draft.skip(node.line, f"context: {node.shown('flash_attention')}", note, "not needed")

    @staticmethod
    def lora_adapters(draft: ModelDraft, node: YamlNode, context: Context) -> None:
        for each in node.elements():
            paths = [*draft.table.get("lora", ()), context.paths().path(each.text)]
            draft.put(each.line, f"lora: {each.text}", ("lora",), paths)

    @staticmethod
    def lora_scaled_adapters(draft: ModelDraft, node: YamlNode, context: Context) -> None:
        _scaled(draft, node, context, "lora-scaled")

    @staticmethod
    def lora_control_vectors(draft: ModelDraft, node: YamlNode, context: Context) -> None:
        _scaled(draft, node, context, "control-vector-scaled")

    @staticmethod
    def fit_enabled(draft: ModelDraft, node: YamlNode, _context: Context) -> None:
        if isinstance(node.value, bool):
            draft.put(node.line, f"fit: enabled: {node.text}", ("llama", "fit"), "on" if node.value else "off")


def _scaled(draft: ModelDraft, node: YamlNode, context: Context, flag: str) -> None:
    fields = []
    for each in node.elements():
        path, scale = each.get("path"), each.get("scale")
        if path is None:
            draft.skip(each.line, f"lora: {flag}", "the path of the adapter is missing")
        else:
            fields.append(f"{context.paths().path(path.text)}:{scale.text if scale else '1'}")
    if fields:
        draft.put(node.line, f"lora: {flag}", ("llama", flag), format_row(fields))
