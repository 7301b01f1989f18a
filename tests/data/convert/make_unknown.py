"""Makes tiny random models of architectures that are not converted here, in the official converter's environment.

    PYTHON -I -B make_unknown.py FOLDER

One is a state-space model, one has ALiBi instead of positions, one sees. Each has a byte-level BPE vocabulary of its
own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def write_tokenizer(folder: Path, more: list[str]) -> int:
    """Train and write a tokenizer; return how many tokens a model has for it: a multiple of 32, as most have."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, vocab_size=400, special_tokens=[END, *more])
    made.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 9, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token=END, eos_token=END, unk_token=END)
    fast.save_pretrained(folder)
    return -(-len(fast) // 32) * 32


def save(folder: Path, build: type, config: type, *, more: tuple[str, ...] = (), **settings: object) -> None:
    """Write one model with its tokenizer."""
    size = write_tokenizer(folder, list(more))
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    build(config(vocab_size=size, **ends, **settings)).to(torch.float16).save_pretrained(folder)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    torch.manual_seed(0)
    save(
        out / "state-space",
        transformers.MambaForCausalLM,
        transformers.MambaConfig,
        hidden_size=256,
        num_hidden_layers=2,
    )
    save(out / "alibi", transformers.BloomForCausalLM, transformers.BloomConfig, hidden_size=256, n_layer=2, n_head=4)
    vision = {"depth": 4, "embed_dim": 64, "hidden_size": 256, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    save(
        out / "seeing",
        transformers.Qwen2VLForConditionalGeneration,
        transformers.Qwen2VLConfig,
        more=tuple(VISION),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_scaling={"type": "mrope", "mrope_section": [8, 12, 12]},
        vision_config={**vision, "spatial_merge_size": 2, "temporal_patch_size": 2},
    )
    config = (
        out / "seeing" / "config.json"
    )  # transformers names the architecture further inside than released models do
    described = json.loads(config.read_text()) | {"architectures": ["Qwen2VLForConditionalGeneration"]}
    config.write_text(json.dumps(described))
    images = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "min_pixels": 3136, "max_pixels": 784 * 64}
    images |= {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2}
    (out / "seeing" / "preprocessor_config.json").write_text(json.dumps({**images, "temporal_patch_size": 2}))
