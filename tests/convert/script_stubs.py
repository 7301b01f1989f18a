"""Stand-ins for the two modules of llama.cpp's converter that the driver touches."""

from __future__ import annotations

TRUST = (
    "def resolve_trust_remote_code(trust, *more): return trust\ndef get_class_from_dynamic_module(*more): return 1\n"
)

BASE = "class TextModel:\n    def get_vocab_base_pre(self, tokenizer): raise NotImplementedError(tokenizer)\n"
