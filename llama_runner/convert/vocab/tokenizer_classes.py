"""Tokenizer classes of transformers 4.57 and 5.23, with the tokens that each one adds.

Only the special tokens that a class has by default, and whether it puts some around a text; tokenizer_config.json
outranks it. A class that adds anything else (T5's sentinels, CamemBERT's unused tokens) is not listed, and so refused.
"""

from __future__ import annotations

_BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_LLAMA = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_GPT2 = {"unk_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
_QWEN = {"unk_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
_GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
_COHERE = {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>", "unk_token": "<UNK>"}
_BLOOM = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

CLASSES: dict[str, dict[str, str]] = {
    "PreTrainedTokenizer": {},
    "TokenizersBackend": {},
    "LlamaTokenizer": _LLAMA,
    "CodeLlamaTokenizer": _LLAMA,
    "GPT2Tokenizer": _GPT2,
    "GPTNeoXTokenizer": _GPT2,
    "CodeGenTokenizer": _GPT2,
    "Qwen2Tokenizer": _QWEN,
    "GemmaTokenizer": _GEMMA,
    "CohereTokenizer": _COHERE,
    "BloomTokenizer": _BLOOM,
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "ElectraTokenizer": _BERT,
    "RobertaTokenizer": _ROBERTA,
    "XLMRobertaTokenizer": _ROBERTA,
    "MPNetTokenizer": {**_ROBERTA, "unk_token": "[UNK]"},
}
CLASS_OF_5, PLAIN_FAST = "TokenizersBackend", "PreTrainedTokenizerFast"
"""The class without tokens of its own, in transformers 5 and 4."""
SAVED_BY_5 = "backend"
"""A key of tokenizer_config.json that transformers 5 writes."""
# Classes that put BOS and EOS around a text whatever tokenizer.json says; whether they put BOS by default. In a
# tokenizer that transformers 5 saved, tokenizer.json says it, unless add_bos_token or add_eos_token does.
FRAMING = {
    "LlamaTokenizer": True,
    "CodeLlamaTokenizer": True,
    "GemmaTokenizer": True,
    "CohereTokenizer": True,
    "GPTNeoXTokenizer": False,
}
# Classes that configure a BertNormalizer by tokenizer_config.json, whatever tokenizer.json says (transformers 4.57 and
# 5.23); by key of the normalizer, the setting and its default.
SETTING_NORMALIZER = frozenset({"BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer"})
NORMALIZER_SETTINGS: dict[str, tuple[str, bool | None]] = {
    "lowercase": ("do_lower_case", True),
    "strip_accents": ("strip_accents", None),
    "handle_chinese_chars": ("tokenize_chinese_chars", True),
}
# What transformers takes where neither tokenizer_config.json nor config.json names a class.
CLASS_OF_MODEL_TYPE = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "ministral", "phi3", "phimoe", "arcee", "jamba"), "LlamaTokenizer"),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "ernie4_5"), "LlamaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"), "Qwen2Tokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("gpt2", "gptj", "gpt_bigcode", "starcoder2", "dbrx", "exaone4", "opt"), "GPT2Tokenizer"),
    **dict.fromkeys(("gpt_neox", "olmo", "olmo2", "olmoe", "stablelm", "mpt"), "GPTNeoXTokenizer"),
    **dict.fromkeys(("falcon", "glm", "glm4", "glm4_moe", "nemotron", "gpt_oss"), "PreTrainedTokenizer"),
    **dict.fromkeys(("modernbert", "smollm3"), "PreTrainedTokenizer"),
    **dict.fromkeys(("phi", "codegen"), "CodeGenTokenizer"),
    **dict.fromkeys(("cohere", "cohere2"), "CohereTokenizer"),
    "bloom": "BloomTokenizer",
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "mpnet": "MPNetTokenizer",
}
