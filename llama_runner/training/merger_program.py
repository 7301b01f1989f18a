"""Merges a LoRA adapter into its base: a program of its own, which imports nothing of llama_runner.

``python -I -B merger_program.py JOB`` runs where ``trainer_program`` does. The sum is computed in 32 bits and written
in the type of the base; all files but the weights are the base's own.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".gguf")


def main(job_file: str) -> None:
    """Do the job: {"model", "adapter", "out", "threads"}."""
    import torch  # noqa: PLC0415 - takes seconds
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    base, out = Path(job["model"]), Path(job["out"])
    torch.set_num_threads(job["threads"])
    kind = AutoConfig.from_pretrained(base, trust_remote_code=False).dtype or torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
    merged = PeftModel.from_pretrained(model, job["adapter"]).merge_and_unload(safe_merge=True).to(kind)
    merged.save_pretrained(out, safe_serialization=True, max_shard_size="4GB")
    for path in out.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes them private
    for path in base.iterdir():
        if path.is_file() and not path.name.endswith(_WEIGHTS):
            shutil.copyfile(path, out / path.name)


if __name__ == "__main__":
    main(sys.argv[1])
