"""Computes the logits of the original with transformers: a program of its own, which imports nothing of llama_runner.

``python original_logits_driver.py JOB RESULT`` runs in the environment of llama.cpp's own converter, offline, and runs
no code of the model. It reads files of logits as llama-perplexity writes them (``kl_divergence`` in perplexity.cpp).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = b"_logits_"


class Logits:
    """A file of logits: ``chunks`` of ``context`` tokens, and log-probabilities of the second half of each."""

    def __init__(self, path: str) -> None:
        data = np.fromfile(path, dtype=np.uint8)
        if data[:8].tobytes() != _MAGIC:
            raise ValueError(f"{path} is no file of logits")
        self.context, self.vocabulary, self.chunks = (int(each) for each in data[8:20].view(np.int32))
        count = self.context * self.chunks
        self.tokens = data[20 : 20 + 4 * count].view(np.int32).reshape(self.chunks, self.context).astype(np.int64)
        self.scored = self.context - 1 - self.context // 2
        self._rows = data[20 + 4 * count :].view(np.uint16)
        self._width = 2 * ((self.vocabulary + 1) // 2) + 4

    def log_probabilities(self, chunk: int) -> Any:  # noqa: ANN401 - an array of another environment's numpy
        """Return the log-probabilities of one chunk: 16-bit steps from the lowest one."""
        start = chunk * self.scored * self._width
        rows = self._rows[start : start + self.scored * self._width].reshape(self.scored, self._width)
        head = np.ascontiguousarray(rows[:, :4]).view(np.float32)
        return rows[:, 4 : 4 + self.vocabulary].astype(np.float64) * head[:, :1] + head[:, 1:2]


def load(directory: str) -> Any:  # noqa: ANN401 - of a library
    """Return the original in 32 bits."""
    import torch  # noqa: PLC0415 - takes seconds
    import transformers  # noqa: PLC0415

    config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
    kind = getattr(transformers, (config.architectures or ["?"])[0], transformers.AutoModelForCausalLM)
    model = kind.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False)
    return model.eval()


def main(job_file: str, result_file: str) -> None:
    """Read the job; write the figures, and the mean squares of what goes into each weight."""
    import torch  # noqa: PLC0415 - takes seconds

    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    files = {name: Logits(path) for name, path in job["logits"].items()}
    first = next(iter(files.values()))
    model = load(job["directory"])
    seen: dict[str, tuple[Any, int]] = {}

    def watch(name: str) -> Any:  # noqa: ANN401
        def before(_module: Any, inputs: tuple[Any, ...]) -> None:  # noqa: ANN401
            rows = inputs[0].detach().to(torch.float64)
            rows = rows.reshape(-1, rows.shape[-1])
            total, count = seen.get(name, (0.0, 0))
            seen[name] = (total + (rows * rows).sum(dim=0).numpy(), count + rows.shape[0])

        return before

    wanted = set(job["weights"])
    for name, module in model.named_modules():
        weight = next((each for each in (f"{name}.weight", f"model.{name}.weight") if each in wanted), None)
        if weight is not None:
            module.register_forward_pre_hook(watch(weight))
    sums = {name: np.zeros(3) for name in files}
    worst = dict.fromkeys(files, 0.0)
    half = first.context // 2
    for chunk in range(first.chunks):
        tokens = first.tokens[chunk].copy()
        if job["bos"] is not None:
            tokens[0] = job["bos"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(tokens[None]), use_cache=False).logits[0]
        ours = logits[half : half + first.scored, : first.vocabulary].to(torch.float64)
        log_p = torch.log_softmax(ours, dim=-1).numpy()
        for name, file in files.items():
            log_q = file.log_probabilities(chunk)[:, : log_p.shape[1]]
            log_q = log_q - np.log(np.exp(log_q).sum(axis=1, keepdims=True))
            each = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
            same = (log_p.argmax(axis=1) == log_q.argmax(axis=1)).sum()
            sums[name] += np.array([each.sum(), same, len(each)])
            worst[name] = max(worst[name], float(each.max()))
    figures = {
        name: {"kld_mean": total / count, "kld_max": worst[name], "same_top_percent": 100 * same / count,
               "tokens": int(count)}
        for name, (total, same, count) in sums.items()
    }  # fmt: skip
    inputs = {name: (total / count).tolist() for name, (total, count) in seen.items()}
    Path(result_file).write_text(json.dumps({"figures": figures, "inputs": inputs}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
