"""What a caller of convert and inspect may rely on."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llama_runner.convert import convert, cut_tensor_into_chunks, errors, inspect, supported_architectures
from llama_runner.core.errors import Interrupted
from tests.convert.checkpoints import bert, copy_tokenizer, llama, shard, write_json
from tests.convert.gguf_file import read

if TYPE_CHECKING:
    from collections.abc import Callable


def test_digest_is_that_of_the_file(tmp_path: Path) -> None:
    made = convert(llama(tmp_path / "model"), tmp_path / "out.gguf", name="model")
    assert made.sha256 == hashlib.sha256((tmp_path / "out.gguf").read_bytes()).hexdigest()
    assert made.architecture == "LlamaForCausalLM"
    assert made.outtype == "bf16"


def test_the_name_of_the_directory_does_not_matter(tmp_path: Path) -> None:
    plain = convert(llama(tmp_path / "model"), tmp_path / "1.gguf", name="acme-7B")
    odd = convert(llama(tmp_path / "mit Leerzeichen und ÄÖÜ 東京"), tmp_path / "2 é.gguf", name="acme-7B")
    assert plain.sha256 == odd.sha256
    other = convert(tmp_path / "model", tmp_path / "3.gguf", name="another-7B")
    assert other.sha256 != plain.sha256


def test_linked_files_are_followed(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model")
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in directory.iterdir():
        (linked / path.name).symlink_to(path)
    plain = convert(directory, tmp_path / "1.gguf", name="m")
    assert convert(linked, tmp_path / "2.gguf", name="m").sha256 == plain.sha256


def test_small_chunks_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = llama(tmp_path / "model", dtype="F32", biases=True)
    for outtype in ("bf16", "q8_0"):
        whole = convert(directory, tmp_path / f"{outtype}-1.gguf", name="m", outtype=outtype)
        with monkeypatch.context() as patch:
            patch.setattr(cut_tensor_into_chunks, "CHUNK", 100)
            small = convert(directory, tmp_path / f"{outtype}-2.gguf", name="m", outtype=outtype)
        assert small.sha256 == whole.sha256


def test_progress_reaches_the_whole_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = convert(llama(tmp_path / "model"), tmp_path / "out.gguf", name="m", on_progress=lambda *a: seen.append(a))
    written, totals = zip(*seen, strict=True)
    assert list(written) == sorted(set(written))
    assert set(totals) == {made.bytes}
    assert written[-1] == made.bytes


def test_cancelling_interrupts_and_leaves_no_file_and_no_thread(tmp_path: Path) -> None:
    answers = iter([False] * 5 + [True] * 100)
    with pytest.raises(Interrupted):
        convert(llama(tmp_path / "model"), tmp_path / "out.gguf", name="m", cancelled=lambda: next(answers))
    assert not (tmp_path / "out.gguf").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "hash"]


def test_an_existing_destination_is_neither_overwritten_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "out.gguf").write_text("mine")
    with pytest.raises(FileExistsError):
        convert(llama(tmp_path / "model"), tmp_path / "out.gguf", name="m")
    assert (tmp_path / "out.gguf").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does it")
def test_a_full_disk_is_the_system_s_own_error_and_leaves_no_file(tmp_path: Path) -> None:
    llama(tmp_path / "model")
    program = f"""
import resource, signal
from pathlib import Path
from llama_runner.convert import convert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
model, out, written = Path({str(tmp_path / "model")!r}), Path({str(tmp_path / "out.gguf")!r}), []
try:
    convert(model, out, name="m", on_progress=lambda done, total: written.append(done))
except OSError as error:
    print(error.errno, len(written))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    code, chunks = map(int, done.stdout.split())
    assert code == errno.EFBIG
    if sys.platform == "linux":  # the room for all of it is reserved first
        assert chunks == 0
    assert not (tmp_path / "out.gguf").exists()


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _replace(path: Path) -> None:
    data = path.read_bytes()
    other = path.with_name("other")
    other.write_bytes(data)
    other.replace(path)


def _write_over(path: Path) -> None:
    """Write other bytes into the same file and restore its time, as ``cp -p`` does."""
    before, data = path.stat(), path.read_bytes()
    with path.open("r+b") as file:
        file.write(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        _grow,
        _replace,
        _write_over,
        lambda path: os.utime(path, (1, 1)),
        lambda path: os.truncate(path, 3000),
        Path.unlink,
    ],
    ids=["grown", "replaced", "11_04 written over", "touched", "cut", "removed"],
)
def test_a_shard_that_changes_while_it_is_read_is_an_error(tmp_path: Path, change: Callable[[Path], object]) -> None:
    directory = llama(tmp_path / "model")
    shard(directory, 2)
    path = directory / "model-00002-of-00002.safetensors"
    calls: list[tuple[int, int]] = []

    def on_progress(done: int, total: int) -> None:
        if len(calls) == 3:
            change(path)
        calls.append((done, total))

    with pytest.raises(errors.SourceChanged, match=r"model-00002-of-00002\.safetensors changed while it was read"):
        convert(directory, tmp_path / "out.gguf", name="m", on_progress=on_progress)
    assert not (tmp_path / "out.gguf").exists()


def test_11_04_a_hard_link_to_a_shard_does_not_stop_its_conversion(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model")
    path = directory / "model.safetensors"
    times: list[int] = []

    def on_progress(_done: int, _total: int) -> None:
        if not times:
            os.link(path, tmp_path / "link")
        times.append(path.stat().st_ctime_ns)

    convert(directory, tmp_path / "out.gguf", name="m", on_progress=on_progress)
    assert times


def test_inspect_tells_what_a_checkpoint_is(tmp_path: Path) -> None:
    found = inspect(llama(tmp_path / "model", dtype="F16"))
    assert (found.architecture, found.family, found.dtype) == ("LlamaForCausalLM", "llama", "F16")
    assert (found.context_length, found.vocabulary_kind, found.vocabulary_size) == (128, "sentencepiece", 420)
    assert found.parameters == sum(tensor.elements for tensor in found.tensors) == 40864
    assert found.weight_bytes == 2 * found.parameters
    assert [path.name for path in found.files] == ["model.safetensors"]


def test_inspect_tells_what_an_encoder_is(tmp_path: Path) -> None:
    found = inspect(bert(tmp_path / "model"))
    assert (found.family, found.vocabulary_kind, found.context_length) == ("bert", "wordpiece", 64)


def test_queries_and_keys_are_reordered_and_values_are_not(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model", dtype="F32", hidden_size=16, num_attention_heads=2, num_key_value_heads=1)
    convert(directory, tmp_path / "out.gguf", name="m", outtype="f32")
    tensors = read(tmp_path / "out.gguf").tensors
    data = (tmp_path / "out.gguf").read_bytes()
    source = {tensor.name: tensor for tensor in inspect(directory).tensors}
    raw = (directory / "model.safetensors").read_bytes()

    def pair(ours: str, theirs: str) -> tuple[list[float], list[float]]:
        (columns, rows), _, offset = tensors[ours]
        mine = np.frombuffer(data, "<f4", rows * columns, offset).reshape(rows, columns)[:, 0]
        tensor = source[theirs]
        other = np.frombuffer(raw, "<f4", tensor.elements, tensor.offset).reshape(rows, columns)[:, 0]
        return mine.tolist(), other.tolist()

    mine, theirs = pair("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight")
    assert mine == [theirs[row] for row in (0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15)]
    mine, theirs = pair("blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight")
    assert mine == theirs


def test_several_named_templates_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model")
    copy_tokenizer(directory, "byte-fallback")
    named = [{"name": name, "template": f"<{name}>"} for name in ("zeta", "default", "alpha", "tool use", "beta")]
    write_json(directory / "tokenizer_config.json", {"chat_template": named})
    convert(directory, tmp_path / "out.gguf", name="m")
    values = read(tmp_path / "out.gguf").values
    assert values["tokenizer.chat_templates"] == ["zeta", "alpha", "tool_use", "beta"]
    assert values["tokenizer.chat_template"] == "<default>"
    assert values["tokenizer.chat_template.tool_use"] == "<tool use>"


def test_templates_in_files_are_listed_by_name_on_every_file_system(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model")
    copy_tokenizer(directory, "byte-fallback")
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"})
    (directory / "chat_template.jinja").write_text("<default>")
    (directory / "additional_chat_templates").mkdir()
    names = [f"t{number}" for number in (5, 3, 8, 1, 9, 2, 7, 4, 6)]
    for name in names:
        (directory / "additional_chat_templates" / f"{name}.jinja").write_text(f"<{name}>")
    convert(directory, tmp_path / "out.gguf", name="m")
    values = read(tmp_path / "out.gguf").values
    assert values["tokenizer.chat_templates"] == sorted(names)
    assert values["tokenizer.chat_template.t3"] == "<t3>"


def test_supported_architectures_are_known_without_numpy() -> None:
    program = (
        "import sys; from llama_runner.convert import supported_architectures as s; "
        "print(len(s()), sorted({'numpy', 'gguf', 'yaml', 'safetensors', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1)[1].strip() == "[]"
    assert "LlamaForCausalLM" in supported_architectures()


def test_pain_13_conversion_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    llama(tmp_path / "model")
    program = f"""
import sys
from pathlib import Path
for name in ("torch", "transformers", "sentencepiece", "tokenizers", "google.protobuf"):
    sys.modules[name] = None
from llama_runner.convert import convert
convert(Path({str(tmp_path / "model")!r}), Path({str(tmp_path / "out.gguf")!r}), name="m")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")
def test_pain_14_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """160 MB of weights with a chunk of 4 MiB: what is held stays far below the weights."""
    llama(tmp_path / "model", dtype="BF16", hidden_size=1024, intermediate_size=8192, num_hidden_layers=3)
    program = f"""
import resource
from pathlib import Path
from llama_runner.convert import convert
def anonymous(_a=0, _b=0):
    line = next(l for l in open("/proc/self/status") if l.startswith("RssAnon"))
    peak[0] = max(peak[0], int(line.split()[1]))
peak = [0]
convert(Path({str(tmp_path / "model")!r}), Path({str(tmp_path / "out.gguf")!r}), name="m", on_progress=anonymous)
print(peak[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (tmp_path / "out.gguf").stat().st_size > 160e6
    assert int(done.stdout) * 1024 < 100e6
