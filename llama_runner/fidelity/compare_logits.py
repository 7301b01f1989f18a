"""Compares the logits of the original in transformers with those of GGUF files, for the same token ids.

llama-perplexity splits a text into tokens and writes its logits; transformers computes the original's for the same
tokens. Where the unquantized file differs, llama-imatrix writes the mean squares of what goes into each weight. They
are compared layer by layer with the original's: the first that departs says which part is wrong.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import reading
from llama_runner.core.errors import SourceError, StepError
from llama_runner.engine.errors import ProgramFailed
from llama_runner.fidelity.report import Finding
from llama_runner.llama_cpp.program_environment import step_environment
from llama_runner.llama_cpp.toolchain import PASSED_ENVIRONMENT
from llama_runner.sources.gguf_header import read_header
from llama_runner.system.files import read_bounded, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llama_runner.core.step_interfaces import Workspace

DRIVER = Path(__file__).with_name("original_logits_driver.py")
TEXT = Path(__file__).with_name("logits_text.txt")
CONTEXT, CHUNKS = 128, 2
_LIMITS = (
    (re.compile(r"f32|f16|bf16"), 0.01), (re.compile(r"q8_0"), 0.03), (re.compile(r"q6_k"), 0.1),
    (re.compile(r"q5_.*"), 0.2), (re.compile(r"q4_.*|iq4_.*|mxfp4.*"), 0.5), (re.compile(r".*"), 2.0),
)  # fmt: skip
"""The largest mean KL divergence in nats that is usual, by type."""
_DEPARTS = 0.02
"""Relative difference of the mean squares from which an input departs. That of 16-bit weights is below 0.005."""
_STAGES = (
    ("attn_q", "attn_k", "attn_v", "attn_qkv"), ("attn_output",), ("ffn_gate", "ffn_up", "ffn_gate_inp"), ("ffn_down",),
)  # fmt: skip
_PARTS = (
    "what goes into the layer, the output of the one before",
    "attention",
    "the output of attention, or the norm after it",
    "the gate and the first matrix of the feed-forward part",
)


def limit_of(quantization: str) -> float:
    """Return the largest usual KL divergence of a type, in nats."""
    return next(limit for names, limit in _LIMITS if names.fullmatch(quantization))


def measure(
    directory: Path,
    files: Mapping[str, Path],
    program: Callable[[str], Path],
    python: Path,
    workspace: Workspace,
    *,
    threads: int,
) -> tuple[dict[str, Any], list[Finding]]:
    """Return the figures of each file by its name, and what is wrong; ``base`` is the unquantized one."""
    header = read_header(files["base"])
    trained = header.facts().get("context_length") or CONTEXT
    context = min(CONTEXT, int(trained))
    logits: dict[str, str] = {}
    for number, (name, path) in enumerate(files.items()):
        workspace.progress(number, len(files) + 1, "files")
        logits[name] = str(workspace.scratch / f"{name}.logits")
        words: list[str | Path] = ["-f", TEXT, "--kl-divergence-base", logits[name], *_options(context, threads)]
        workspace.run_program(
            [program("llama-perplexity"), "-m", path, *words], env=step_environment(os.environ), cwd=workspace.scratch
        )
        if not Path(logits[name]).is_file():
            raise StepError(f"llama-perplexity wrote no logits of {path.name}")
    sources = _weights(directory)
    metadata = header.metadata
    adds_bos = metadata.get("tokenizer.ggml.add_bos_token", metadata.get("tokenizer.ggml.model") == "llama")
    job = {
        "directory": str(directory),
        "logits": logits,
        "bos": metadata.get("tokenizer.ggml.bos_token_id", 1) if adds_bos else None,
        "weights": sorted(sources.values()),
    }
    answer = _ask(job, python, workspace)
    figures: dict[str, dict[str, Any]] = {}
    findings = []
    for name, found in answer["figures"].items():
        quantization = str(read_header(files[name]).facts().get("quantization") or "f16")
        limit = limit_of(quantization)
        figures[name] = {
            "type": quantization,
            "kld_mean": f"{found['kld_mean']:.6f}",
            "kld_max": f"{found['kld_max']:.6f}",
            "same_top_percent": f"{found['same_top_percent']:.2f}",
            "tokens": found["tokens"],
            "limit": f"{limit:g}",
        }
        if not found["kld_mean"] <= limit:  # or it is NaN
            text = f"{quantization}: the mean KL divergence is {found['kld_mean']:.4f}, usual is at most {limit:g}"
            if name == "base":
                inputs = _inputs(files[name], program("llama-imatrix"), workspace, context, threads)
                part, where = _departure(answer["inputs"], inputs, sources, directory, files[name])
                findings.append(Finding(part, f"{where}; {text}", "file"))
            elif not findings:
                findings.append(Finding("quantization", text, "unknown"))
    return figures, findings


def _options(context: int, threads: int) -> list[str]:
    return ["--ctx-size", str(context), "--chunks", str(CHUNKS), "--threads", str(threads)]


def _ask(job: object, python: Path, workspace: Workspace) -> dict[str, Any]:
    question, answer, home = (workspace.scratch / name for name in ("job.json", "answer.json", "home"))
    question.write_text(json.dumps(job), encoding="utf-8")
    home.mkdir(exist_ok=True)
    env = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
    env |= {"HOME": str(home), "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        workspace.run_program([python, "-I", "-B", DRIVER, question, answer], env=env, cwd=workspace.scratch)
    except ProgramFailed as error:
        said = next((line for line in reversed(error.tail) if line.strip()), "")
        raise StepError(f"transformers cannot compute the original: {said.strip()}\nfull log: {error.log}") from None
    found: dict[str, Any] = read_json(answer, 1 << 30)
    return found


def _weights(directory: Path) -> dict[str, str]:
    """Return the original's name of each weight by its name in the file; empty for what is not converted here."""
    from llama_runner.convert.prepare_checkpoint import prepare  # noqa: PLC0415 - only here

    try:
        planned = prepare(directory, name=directory.name, outtype="auto").planned
    except SourceError:
        return {}
    return {each.name: each.pieces[0].source.name for each in planned if each.pieces}


def _inputs(path: Path, program: Path, workspace: Workspace, context: int, threads: int) -> dict[str, Any]:
    """Return the mean squares of what goes into each weight of a file, by its name."""
    import gguf  # noqa: PLC0415 - loads numpy

    target = workspace.scratch / "inputs.gguf"
    words: list[str | Path] = ["-m", path, "-f", TEXT, "-o", target, "--output-format", "gguf", "--no-ppl"]
    words += _options(context, threads)
    workspace.run_program([program, *words], env=step_environment(os.environ), cwd=workspace.scratch)
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(target).tensors}
    return {
        name.removesuffix(".in_sum2"): data.reshape(-1) / max(1.0, float(tensors[name[:-8] + ".counts"].reshape(-1)[0]))
        for name, data in tensors.items()
        if name.endswith(".in_sum2") and tensors[name[:-8] + ".counts"].size == 1
    }


def _departure(
    theirs: Mapping[str, list[float]], ours: Mapping[str, Any], sources: Mapping[str, str], directory: Path, file: Path
) -> tuple[str, str]:
    """Return the part of the first layer whose inputs depart, and where that is."""
    import numpy as np  # noqa: PLC0415 - only where something differs

    layers = sorted({int(found[1]) for name in ours if (found := re.match(r"blk\.(\d+)\.", name))})
    compared = 0
    for layer in layers:
        for part, names in zip(_PARTS, _STAGES, strict=True):
            for name in (f"blk.{layer}.{each}.weight" for each in names):
                want = theirs.get(sources.get(name, ""))
                if want is None or name not in ours or len(want) != len(ours[name]):
                    continue
                compared += 1
                a, b = np.sqrt(np.asarray(want)), np.sqrt(np.asarray(ours[name], dtype=np.float64))
                difference = float(np.linalg.norm(a - b) / max(1e-30, float(np.linalg.norm(a))))
                if difference > _DEPARTS:
                    where = (
                        f"layer {layer} is the first that departs: what goes into {name} differs by {difference:.0%}"
                    )
                    if part == _PARTS[1]:
                        return _attention_part(layer, sources, directory, file), where
                    return f"layer {layer}: {part}", where
    if not compared:
        return "logits", "the layers of this model are not known here"
    return "output", "all layers agree: the last norm or the output matrix differs"


def _attention_part(layer: int, sources: Mapping[str, str], directory: Path, file: Path) -> str:
    """Return what of attention is wrong: rope, or the matrices of query and key."""
    import gguf  # noqa: PLC0415 - loads numpy
    import numpy as np  # noqa: PLC0415

    config = read_json(directory / _CONFIG)
    inside = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
    settings = {**config, **inside, **(config.get("rope_parameters") or {})}
    header = read_header(file)
    architecture = header.text("general.architecture")
    want, got = settings.get("rope_theta", 10000.0), header.metadata.get(f"{architecture}.rope.freq_base", 10000.0)
    if isinstance(want, (int, float)) and abs(want - got) > 1e-4 * abs(want):
        return f"rope: its base is {want:g}, in the file {got:g}"
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    norms: dict[str, tuple[Any, Any]] = {}
    for kind in ("q", "k"):
        name = f"blk.{layer}.attn_{kind}.weight"
        if name not in tensors or f"{kind}_proj" not in sources.get(name, ""):
            return "attention: query, key, value or rope"
        rows = gguf.dequantize(tensors[name].data, tensors[name].tensor_type)
        norms[kind] = (
            np.sort(np.linalg.norm(_stored(directory, sources[name]), axis=1)),
            np.sort(np.linalg.norm(rows, axis=1)),
        )

    def same(first: Any, second: Any) -> bool:  # noqa: ANN401 - arrays
        return first.shape == second.shape and bool(np.allclose(first, second, rtol=0.02))

    (want_q, got_q), (want_k, got_k) = norms["q"], norms["k"]
    if same(want_q, got_q) and same(want_k, got_k):
        return "attention: the order of the rows of query and key, or rope"
    if same(want_q, got_k) and same(want_k, got_q):
        return "attention: query and key are swapped"
    return "attention: the weights of query or key"


_CONFIG = "config" + ".json"


def _stored(directory: Path, name: str) -> Any:  # noqa: ANN401 - an array
    """Return a matrix of the original in 32 bits."""
    import numpy as np  # noqa: PLC0415 - as above

    from llama_runner.convert.find_weight_files import find_shards  # noqa: PLC0415
    from llama_runner.convert.model_directory import ModelDirectory  # noqa: PLC0415

    tensor = next(
        each for shard in find_shards(ModelDirectory(directory)) for each in shard.tensors if each.name == name
    )
    with reading(tensor.path):
        data = read_bounded(tensor.path, 1 << 40)[tensor.offset : tensor.offset + tensor.nbytes]
    if tensor.dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)
    kinds = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
    return np.frombuffer(data, kinds.get(tensor.dtype, np.uint8)).astype(np.float32).reshape(tensor.shape)
