"""Architectures that can be converted, with the module of each.

To add one, run ``scripts/new_architecture.py``; CONTRIBUTING.md has an example. It writes ``families/<family>.py``
with a `Family`, and the entry here: the module and its constant. The table is separate from the modules, so that
listing the architectures imports none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from llama_runner.convert.families.family_definition import Family

ARCHITECTURES = {
    "ArceeForCausalLM": "arcee.FAMILY",
    "BertForMaskedLM": "bert.FAMILY",
    "BertForSequenceClassification": "bert.FAMILY",
    "BertModel": "bert.FAMILY",
    "Cohere2ForCausalLM": "cohere.COHERE2",
    "CohereForCausalLM": "cohere.COHERE",
    "DeepseekV2ForCausalLM": "deepseek.FAMILY",
    "DeepseekV3ForCausalLM": "deepseek.FAMILY",
    "DistilBertForMaskedLM": "distilbert.FAMILY",
    "DistilBertForSequenceClassification": "distilbert.FAMILY",
    "DistilBertModel": "distilbert.FAMILY",
    "Ernie4_5ForCausalLM": "ernie.FAMILY",
    "Ernie4_5_ForCausalLM": "ernie.FAMILY",
    "Exaone4ForCausalLM": "exaone.EXAONE4",
    "ExaoneForCausalLM": "exaone.EXAONE",
    "FalconForCausalLM": "falcon.FAMILY",
    "GPT2LMHeadModel": "gpt2.FAMILY",
    "GPTBigCodeForCausalLM": "starcoder.STARCODER",
    "GPTNeoXForCausalLM": "gptneox.FAMILY",
    "Gemma2ForCausalLM": "gemma.GEMMA2",
    "Gemma3ForCausalLM": "gemma.GEMMA3",
    "Gemma3ForConditionalGeneration": "gemma.GEMMA3_COMPOSITE",
    "Gemma3TextModel": "gemma.EMBEDDING",
    "Gemma3nForCausalLM": "gemma3n.FAMILY",
    "Gemma3nForConditionalGeneration": "gemma3n.COMPOSITE",
    "GemmaForCausalLM": "gemma.GEMMA",
    "Glm4ForCausalLM": "glm.GLM4",
    "Glm4MoeForCausalLM": "glm.GLM4MOE",
    "GlmForCausalLM": "glm.GLM",
    "GptOssForCausalLM": "gptoss.FAMILY",
    "GraniteForCausalLM": "granite.GRANITE",
    "GraniteMoeForCausalLM": "granite.GRANITEMOE",
    "GraniteMoeSharedForCausalLM": "granite.GRANITEMOE",
    "HunYuanDenseV1ForCausalLM": "hunyuan.FAMILY",
    "Idefics3ForConditionalGeneration": "llama.IDEFICS3",
    "InternLM2ForCausalLM": "internlm.FAMILY",
    "JambaForCausalLM": "jamba.FAMILY",
    "LFM2ForCausalLM": "lfm2.FAMILY",
    "LLaMAForCausalLM": "llama.FAMILY",
    "Lfm2ForCausalLM": "lfm2.FAMILY",
    "Lfm2MoeForCausalLM": "lfm2.SPARSE",
    "LlamaForCausalLM": "llama.FAMILY",
    "LlamaModel": "llama.FAMILY",
    "LlavaForConditionalGeneration": "ministral.LLAVA",
    "MT5ForConditionalGeneration": "t5.FAMILY",
    "Mamba2ForCausalLM": "mamba2.FAMILY",
    "MiniCPMForCausalLM": "minicpm.FAMILY",
    "Ministral3ForCausalLM": "ministral.FAMILY",
    "Mistral3ForConditionalGeneration": "ministral.COMPOSITE",
    "MistralForCausalLM": "llama.FAMILY",
    "MixtralForCausalLM": "llama.MIXTRAL",
    "ModernBertForMaskedLM": "modernbert.FAMILY",
    "ModernBertForSequenceClassification": "modernbert.FAMILY",
    "ModernBertModel": "modernbert.FAMILY",
    "NemotronForCausalLM": "nemotron.FAMILY",
    "NomicBertModel": "nomic.FAMILY",
    "OLMoForCausalLM": "olmo.OLMO",
    "Olmo2ForCausalLM": "olmo.OLMO2",
    "Olmo3ForCausalLM": "olmo.OLMO3",
    "OlmoForCausalLM": "olmo.OLMO",
    "OlmoeForCausalLM": "olmo.OLMOE",
    "Phi3ForCausalLM": "phi.PHI3",
    "PhiForCausalLM": "phi.PHI2",
    "PhiMoEForCausalLM": "phi.PHIMOE",
    "Qwen2ForCausalLM": "qwen.QWEN2",
    "Qwen2Model": "qwen.QWEN2",
    "Qwen2MoeForCausalLM": "qwen.QWEN2MOE",
    "Qwen2VLForConditionalGeneration": "qwenvl.QWEN2VL",
    "Qwen2_5_VLForConditionalGeneration": "qwenvl.QWEN2_5_VL",
    "Qwen3ForCausalLM": "qwen.QWEN3",
    "Qwen3Model": "qwen.QWEN3",
    "Qwen3MoeForCausalLM": "qwen.QWEN3MOE",
    "Qwen3NextForCausalLM": "qwen3next.FAMILY",
    "Qwen3VLForConditionalGeneration": "qwenvl.QWEN3VL",
    "Qwen3VLMoeForConditionalGeneration": "qwenvl.QWEN3VLMOE",
    "Qwen3_5ForCausalLM": "qwen35.DENSE",
    "Qwen3_5ForConditionalGeneration": "qwen35.DENSE_COMPOSITE",
    "Qwen3_5MoeForCausalLM": "qwen35.SPARSE",
    "Qwen3_5MoeForConditionalGeneration": "qwen35.SPARSE_COMPOSITE",
    "RWForCausalLM": "falcon.FAMILY",
    "RobertaForSequenceClassification": "roberta.ROBERTA",
    "RobertaModel": "roberta.ROBERTA",
    "SeedOssForCausalLM": "olmo.SEED_OSS",
    "SmolLM3ForCausalLM": "granite.SMOLLM3",
    "SmolVLMForConditionalGeneration": "llama.SMOLVLM",
    "StableLMEpochForCausalLM": "stablelm.FAMILY",
    "StableLmForCausalLM": "stablelm.FAMILY",
    "Starcoder2ForCausalLM": "starcoder.STARCODER2",
    "T5EncoderModel": "t5.ENCODER",
    "T5ForConditionalGeneration": "t5.FAMILY",
    "T5WithLMHeadModel": "t5.FAMILY",
    "UMT5ForConditionalGeneration": "t5.FAMILY",
    "UMT5Model": "t5.FAMILY",
    "XLMRobertaForSequenceClassification": "roberta.XLM_ROBERTA",
    "XLMRobertaModel": "roberta.XLM_ROBERTA",
}

# Text parts of multimodal models: the supported model types, and the architectures that they may name.
TEXT_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "Gemma3ForConditionalGeneration": {
        "model_type": ("gemma3_text",),
        "architectures": ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    },
    "Gemma3nForConditionalGeneration": {
        "model_type": ("gemma3n_text",),
        "architectures": ("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
    },
    "Idefics3ForConditionalGeneration": {
        "model_type": ("llama",),
        "architectures": ("VLlama3ForCausalLM",),
    },
    "LlavaForConditionalGeneration": {
        "model_type": ("llama", "mistral"),
        "architectures": ("LlamaForCausalLM", "MistralForCausalLM"),
    },
    "Mistral3ForConditionalGeneration": {
        "model_type": ("ministral3", "mistral"),
        "architectures": ("Ministral3ForCausalLM",),
    },
    "Qwen2VLForConditionalGeneration": {
        "model_type": ("qwen2_vl_text",),
        "architectures": ("Qwen2VLForConditionalGeneration",),
    },
    "Qwen2_5_VLForConditionalGeneration": {
        "model_type": ("qwen2_5_vl_text",),
        "architectures": ("Qwen2_5_VLForConditionalGeneration",),
    },
    "Qwen3VLForConditionalGeneration": {
        "model_type": ("qwen3_vl_text",),
        "architectures": ("Qwen3VLForConditionalGeneration",),
    },
    "Qwen3VLMoeForConditionalGeneration": {
        "model_type": ("qwen3_vl_moe_text",),
        "architectures": ("Qwen3VLMoeForConditionalGeneration",),
    },
    "Qwen3_5ForConditionalGeneration": {
        "model_type": ("qwen3_5_text",),
        "architectures": ("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    },
    "Qwen3_5MoeForConditionalGeneration": {
        "model_type": ("qwen3_5_moe_text",),
        "architectures": ("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    },
    "SmolVLMForConditionalGeneration": {
        "model_type": ("llama",),
        "architectures": ("VLlama3ForCausalLM",),
    },
}

# Architectures whose experts are stored together, two matrices for each block; quantized ones are not converted.
TOGETHER = frozenset(
    {"Qwen3VLMoeForConditionalGeneration", "Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"}
)

# Composite models whose config.json may have the settings of the text part at its top level.
FLAT = frozenset({"Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"})


def family_of(architecture: str) -> Family:
    """Return the family of an architecture; raises `SourceError`."""
    if architecture not in ARCHITECTURES:
        from llama_runner.convert.errors import unsupported_architecture_error  # noqa: PLC0415 - not on the warm path

        raise unsupported_architecture_error(architecture, sorted(ARCHITECTURES))
    module, _, name = ARCHITECTURES[architecture].partition(".")
    return cast("Family", getattr(import_module(f"llama_runner.convert.families.{module}"), name))
