"""Whatever is wrong, there is one clear error with the right exit status, and nothing is lost or half-written."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.events import Event, StepStarted
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.store.local_sources import SourceChanged
from tests.conftest import MODULE, Command, Result, says
from tests.e2e.serving import Running, ask


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a copy of the demo model that a test may damage."""
    return Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / "a mödel"))


def untouched(root: Path) -> bool:
    """Whether nothing was made below ``root``."""
    made = [path for path in root.rglob("*") if path.is_file() and path.suffix not in (".sqlite", ".lock")]
    return not [path for path in made if "bins" not in path.parts]


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ((), ("no model given", "hint: name one")),
        (("--demo", "--gguf-path", "x.gguf"), ("2 models given: --gguf-path x.gguf, --demo", "hint: give one")),
        (("--demo", "-q", "q4_k_x"), ("no quantization called 'q4_k_x'", "did you mean q4_k_")),
        (("--demo", "-q", "iq1_s"), ("iq1_s needs an importance matrix",)),
        (("--demo", "--device", "metal"), ("there is no metal on linux",)),
        (("--demo", "--force-step", "dance"), ("no step called 'dance'", "the steps are ")),
    ],
)
def test_a_request_that_makes_no_sense(
    llama_runner: Command, tmp_path: Path, arguments: tuple[str, ...], texts: tuple[str, ...]
) -> None:
    for command in ("run", "prepare", "plan"):
        says(llama_runner(command, *arguments, "--root", tmp_path / "root"), 2, *texts)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--demo", "--port", "99999"),
        ("run", "--demo", "--ctx-size", "many"),
        ("run", "--demo", "--ctx-size", "0"),
        ("run", "--demo", "--no-such-option"),
        ("run", "--demo", "--outtype", "q4_0"),
        ("dance",),
        ("prepare", "--demo", "--", "--metrics"),
        ("run", "--demo", "--", "--port", "1"),
        ("run", "--demo", "--", "-m", "other.gguf"),
    ],
)
def test_options_that_are_wrong(llama_runner: Command, root: Path, arguments: tuple[str, ...]) -> None:
    before = arguments.index("--") if "--" in arguments else len(arguments)
    rooted = [*arguments[:before], *(["--root", str(root)] if arguments[0] != "dance" else []), *arguments[before:]]
    says(llama_runner(*rooted), 2)


Damage = Callable[[Path], object]


def edit(name: str, **changes: object) -> Damage:
    def damage(model: Path) -> None:
        content = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**content, **changes}))

    return damage


def header(change: Callable[[dict[str, dict[str, object]]], None], *, length: int | None = None) -> Damage:
    def damage(model: Path) -> None:
        path = model / "model.safetensors"
        content = path.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        value = json.loads(content[8 : 8 + size])
        change(value)
        text = json.dumps(value).encode()
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + content[8 + size :])

    return damage


def first(value: dict[str, dict[str, object]]) -> dict[str, object]:
    return next(tensor for name, tensor in sorted(value.items()) if name != "__metadata__")


def shards(model: Path) -> None:
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def pickles(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no config": (lambda m: (m / "config.json").unlink(), "config.json"),
    "broken config": (lambda m: (m / "config.json").write_text("{"), "config.json"),
    "config is a list": (lambda m: (m / "config.json").write_text("[]"), "config.json"),
    "broken tokenizer": (lambda m: (m / "tokenizer.json").write_text("{]"), "tokenizer.json"),
    "no tokenizer": (lambda m: (m / "tokenizer.json").unlink(), "token"),
    "only pickles": (pickles, "pytorch_model.bin"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "safetensors"),
    "an index naming an absent shard": (shards, "model-00002-of-00002.safetensors"),
    "a truncated shard": (lambda m: os.truncate(m / "model.safetensors", 1 << 20), "model.safetensors"),
    "an empty shard": (lambda m: os.truncate(m / "model.safetensors", 0), "model.safetensors"),
    "a header beyond the file": (header(lambda _: None, length=1 << 40), "model.safetensors"),
    "overlapping offsets": (header(lambda v: first(v).update(data_offsets=[0, 16])), "model.safetensors"),
    "offsets out of range": (header(lambda v: first(v).update(data_offsets=[1 << 40, 2 << 40])), "model.safetensors"),
    "an unknown type of numbers": (header(lambda v: first(v).update(dtype="F7")), "F7"),
    "a wrong shape": (edit("config.json", hidden_size=512), "shape"),
    "an unsupported architecture": (edit("config.json", architectures=["NopeForCausalLM"]), "NopeForCausalLM"),
    "a quantized checkpoint": (edit("config.json", quantization_config={"quant_method": "gptq"}), "quant"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_model_directory_with_a_fault_is_refused_before_any_work(
    llama_runner: Command, root: Path, model: Path, kind: str
) -> None:
    damage, text = DAMAGES[kind]
    damage(model)
    result = llama_runner("run", "--safetensors-dir", model, "--root", root, "--port", "0")
    says(result, 3, text, "hint:")
    assert untouched(root), sorted(root.rglob("*"))


def test_an_unsupported_architecture_is_answered_with_those_that_are(
    llama_runner: Command, root: Path, model: Path
) -> None:
    edit("config.json", architectures=["LlammaForCausalLM"])(model)
    says(
        llama_runner("plan", model, "--root", root),
        3,
        "unsupported architecture: LlammaForCausalLM",
        "LlamaForCausalLM",
    )
    native = llama_runner("plan", model, "--root", root, "--converter", "native")
    says(native, 3, "unsupported architecture: LlammaForCausalLM", "BertModel")


def test_what_will_be_installed_for_the_official_script_is_announced_with_its_size(
    root: Path, model: Path, llama_runner: Command
) -> None:
    edit("config.json", architectures=["MambaForCausalLM"])(model)
    result = llama_runner("plan", model, "--root", root)
    assert result.code == 0, result
    assert "llama.cpp's own script converts (MambaForCausalLM is not converted here)" in result.err
    assert "which is installed first (1.0 GiB, 228.9 MiB to fetch)" in result.err
    offline = llama_runner("prepare", model, "--root", root, "--offline")
    says(offline, 5, "Python packages of llama.cpp's own converter")


def test_code_of_the_model_never_runs(llama_runner: Command, root: Path, model: Path, tmp_path: Path) -> None:
    (model / "modeling_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto_map = {"AutoConfig": "modeling_evil.Config", "AutoModelForCausalLM": "modeling_evil.Model"}
    edit("config.json", auto_map=auto_map)(model)
    assert llama_runner("prepare", model, "--root", root).code == 0
    assert not (tmp_path / "ran").exists()


def test_a_directory_that_is_not_there(llama_runner: Command, root: Path, tmp_path: Path) -> None:
    for words in (("--safetensors-dir", tmp_path / "no"), ("--gguf-path", tmp_path / "no.gguf"), ("./no",)):
        says(llama_runner("prepare", *words, "--root", root), 3, "does not exist", "hint: check the path")
    assert untouched(root)


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


GGUF_DAMAGES: dict[str, tuple[Damage, str]] = {
    "empty": (lambda p: os.truncate(p, 0), "it is empty"),
    "truncated": (lambda p: os.truncate(p, p.stat().st_size - 100_000), "it is truncated"),
    "big-endian": (lambda p: p.write_bytes(b"GGUF\0\0\0\3" + p.read_bytes()[8:]), "big-endian"),
    "another format": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n" * 3), "begins with"),
    "a directory": (directory_instead, "directory"),
}


@pytest.fixture
def file(binaries: Path, tmp_path: Path) -> Path:
    """Return a copy of the demo model's file that a test may damage."""
    return Path(shutil.copy(Runner(binaries).prepare(demo=True).model, tmp_path / "model.gguf"))


@pytest.mark.parametrize("kind", GGUF_DAMAGES)
def test_a_file_that_is_no_sound_gguf_is_refused_before_any_work(
    llama_runner: Command, root: Path, file: Path, kind: str
) -> None:
    damage, text = GGUF_DAMAGES[kind]
    damage(file)
    says(llama_runner("run", "--gguf-path", file, "--root", root, "--port", "0"), 3, text)


def test_an_unreadable_file(llama_runner: Command, root: Path, file: Path) -> None:
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read anything")
    says(llama_runner("run", "--gguf-path", file, "--root", root), 3, "Permission denied")


def test_something_that_cannot_be_opened(
    llama_runner: Command, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket has to be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.gguf")
    says(llama_runner("run", "--gguf-path", tmp_path / "socket.gguf", "--root", root), 3, "not a usable GGUF file")


def test_one_shard_without_its_sibling(llama_runner: Command, root: Path, file: Path) -> None:
    lonely = file.rename(file.with_name("model-00001-of-00002.gguf"))
    says(llama_runner("run", lonely, "--root", root), 3, "1 are missing: model-00002-of-00002.gguf")


def test_a_taken_port_is_found_before_any_work(llama_runner: Command, root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = llama_runner("run", "--demo", "--root", root, "--port", port)
    says(result, 8, f"port {port} on 127.0.0.1 is taken", "hint: stop what listens there")
    assert untouched(root)


def test_an_option_that_the_server_refuses(llama_runner: Command, root: Path) -> None:
    result = llama_runner("run", "--demo", "--root", root, "--port", "0", "--", "--override-kv", "nowhere")
    says(result, 8, "before it was ready", "full log: logs/run-server-")


def test_without_a_compiler_one_line_says_how_to_get_one(llama_runner: Command, tmp_path: Path) -> None:
    result = llama_runner("run", "--demo", "--root", tmp_path / "root", env={"PATH": str(tmp_path)})
    says(result, 5, "no C compiler found", "apt-get install -y g++")
    assert not (tmp_path / "root").exists()


def test_what_was_built_runs_without_the_compiler_that_built_it(
    llama_runner: Command, root: Path, tmp_path: Path
) -> None:
    result = llama_runner("prepare", "--demo", "--root", root, "--json", env={"PATH": str(tmp_path)})
    assert result.json["ran"] == ["convert", "quantize"]


def limited(*arguments: object) -> Result:
    """Run the command line where no file may grow past 0.5 MB, which stands for a full disk."""
    command = [*MODULE, *map(str, arguments)]
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 1000; exec "$@"', "sh", *command], check=False, capture_output=True, text=True
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_pain_14_a_full_disk_while_converting_is_an_error_and_leaves_no_file(
    root: Path, llama_runner: Command, model: Path
) -> None:
    result = limited("prepare", model, "--root", root)
    says(result, 7, "no space left in", "hint: free some space")
    assert not list((root / "models").rglob("*.gguf"))
    assert not list((root / ".llama_runner" / "staging").iterdir())
    assert llama_runner("prepare", model, "--root", root).code == 0


def test_pain_14_a_full_disk_while_quantizing_is_an_error(root: Path, llama_runner: Command, model: Path) -> None:
    assert llama_runner("prepare", model, "--root", root, "-q", "q8_0", "--keep-f16").code == 0
    says(limited("prepare", model, "--root", root, "-q", "q6_k"), 7, "no space left in")
    assert not list((root / "models").rglob("*q6_k*"))
    assert list((root / "models").rglob("model.q8_0.gguf"))


def test_a_read_only_store_says_so(llama_runner: Command, root: Path, read_only: Callable[[Path], None]) -> None:
    read_only(root)
    result = llama_runner("prepare", "--demo", "--root", root)
    says(result, 7, "cannot write to", "hint: make it writable or choose another --root")


def test_a_complete_store_may_be_read_only(
    llama_runner: Command, root: Path, read_only: Callable[[Path], None], children: list[subprocess.Popen[str]]
) -> None:
    assert llama_runner("prepare", "--demo", "--root", root).code == 0
    read_only(root)
    assert llama_runner("prepare", "--demo", "--root", root, "--json").json["ran"] == []
    running = Running(children, "--demo", "--root", root)
    assert ask(running.url, "who are you?").startswith("I am the demo model")
    running.process.terminate()
    assert running.finish() == 0


def test_two_processes_at_once_do_the_work_of_one(root: Path) -> None:
    command = [*MODULE, "prepare", "--demo", "--root", str(root), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ran: list[str] = []
    for process in both:
        out, err = process.communicate()
        assert process.returncode == 0, err
        ran += json.loads(out)["ran"]
    assert sorted(ran) == ["convert", "quantize"]


def test_a_source_that_changes_while_it_is_read_gives_nothing(root: Path, model: Path) -> None:
    def touch(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "convert":
            (model / "README.md").write_text("another card")

    with pytest.raises(SourceChanged, match=r"README\.md in .* changed while it was being read") as caught:
        Runner(root, on_event=touch).prepare(model)
    assert caught.value.code == 6
    assert not list((root / "models").rglob("*.gguf"))
    assert Runner(root).prepare(model).ran == ("convert", "quantize")


def test_a_symlinked_source_is_followed(llama_runner: Command, root: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(model)
    result = llama_runner("prepare", "--safetensors-dir", tmp_path / "link", "--root", root, "--json")
    assert result.code == 0, result
    assert "local__link__" in result.json["model"]


def test_a_damaged_state_file_is_a_miss_with_a_warning(llama_runner: Command, root: Path) -> None:
    made = Path(llama_runner("prepare", "--demo", "--root", root, "--json").json["model"])
    (made.parent / ".state.json").write_text('{"schema": 1, "artifacts": {"model.q4_k_m.gguf": 5}}')
    result = llama_runner("prepare", "--demo", "--root", root, "--json")
    assert result.json["ran"] == ["convert", "quantize"]
    assert "warning:" in result.err
    assert "counts as absent" in result.err


def test_paths_that_the_system_refuses(llama_runner: Command, root: Path) -> None:
    says(llama_runner("plan", "x" * 300, "--root", root), 3, "File name too long")
    says(llama_runner("plan", "~nobody-of-that-name/model.gguf", "--root", root), 3, "does not exist")
    says(llama_runner("plan", "", "--root", root), 2, "no model given")


def test_a_pruned_link_among_the_weights(llama_runner: Command, root: Path, model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to(tmp_path / "pruned")
    says(llama_runner("plan", model, "--root", root), 3, "model.safetensors")


def test_a_pipe_among_the_files_is_not_waited_for(llama_runner: Command, root: Path, model: Path) -> None:
    os.mkfifo(model / "extra.json")
    assert llama_runner("plan", model, "--root", root).code == 0


def test_a_root_that_is_a_file(llama_runner: Command, tmp_path: Path, binaries: Path) -> None:
    (tmp_path / "file").touch()
    says(llama_runner("prepare", "--demo", "--root", tmp_path / "file"), 7, "is not a directory")


def test_something_where_the_artifact_belongs(llama_runner: Command, root: Path) -> None:
    made = Path(llama_runner("prepare", "--demo", "--root", root, "--json").json["model"])
    made.unlink()
    made.mkdir()
    (made / "mine").touch()
    says(llama_runner("prepare", "--demo", "--root", root), 7, "something else is in the way", str(made))
    assert (made / "mine").exists()


def test_records_of_the_right_form_with_nonsense_in_them(llama_runner: Command, root: Path) -> None:
    made = Path(llama_runner("prepare", "--demo", "--root", root, "--json").json["model"])
    state = made.parent / ".state.json"
    sound = state.read_text()
    for old, new in (('"files": {', '"files": {"x": 1, '), ('"params": {', '"params": [], "was": {')):
        assert old in sound
        state.write_text(sound.replace(old, new))
        assert llama_runner("plan", "--demo", "--root", root).code == 0


def test_forcing_a_step_runs_it_and_one_that_is_not_there_is_an_error(llama_runner: Command, root: Path) -> None:
    assert llama_runner("prepare", "--demo", "--root", root).code == 0
    again = llama_runner("prepare", "--demo", "--root", root, "--force-step", "convert", "--json")
    assert again.json["ran"] == ["convert"], "the same bytes: quantize is left alone"
    result = llama_runner("prepare", "--demo", "-q", "f16", "--root", root, "--force-step", "quantize")
    says(result, 2, "no step called 'quantize' here", "the steps are convert, fetch, unpack, compile")


def test_a_compiler_must_be_one_program(llama_runner: Command, root: Path) -> None:
    result = llama_runner("plan", "--demo", "--root", root, env={"CC": "gcc -m32"})
    says(result, 5, "CC is 'gcc -m32', which is not a program", "flags go into CFLAGS")
    assert llama_runner("plan", "--demo", "--root", root, env={"CC": " "}).code == 0


def test_how_the_compiler_is_called_does_not_matter(llama_runner: Command, root: Path) -> None:
    import shutil

    path = shutil.which("cc")
    assert path is not None
    for value in ("cc", path, str(Path(path).resolve())):
        plan = llama_runner("plan", "--demo", "--root", root, "--json", env={"CC": value}).json
        assert next(step for step in plan["steps"] if step["name"] == "compile")["action"] == "skip", value


def test_output_that_nobody_reads_does_not_stop_the_work(root: Path) -> None:
    command = [*MODULE, "prepare", "--demo", "--root", str(root), "--json"]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command], check=False, stdin=subprocess.DEVNULL
    )
    assert list((root / "models").rglob("model.q4_k_m.gguf"))
    assert done.returncode in (0, 1, 7)


def test_nohup_is_respected(root: Path, children: list[subprocess.Popen[str]]) -> None:
    import signal

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = Running(children, "--demo", "--root", root)
    finally:
        signal.signal(signal.SIGHUP, before)
    running.process.send_signal(signal.SIGHUP)
    assert ask(running.url, "who are you?").startswith("I am the demo model")
    running.process.terminate()
    assert running.finish() == 0


READING = (
    "status",
    "plan --demo",
    "ps",
    "gc",
    "models list",
    "models keep",
    "doctor",
    "bins list",
    "stop --all",
    "logs",
)


@pytest.mark.parametrize("command", [*READING, "prepare --demo"])
def test_13_13_a_root_that_is_no_directory_is_an_error_of_every_command(
    llama_runner: Command, tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nothing")
    for name, why in (("file", "is not a directory"), ("dangling", "is a link to nothing")):
        done = llama_runner(*command.split(), "--root", tmp_path / name)
        says(done, 7, f"error: the root {tmp_path / name} {why}\nhint: choose another --root (LLAMA_RUNNER_ROOT)")


@pytest.mark.parametrize("command", READING)
def test_13_13_a_command_that_only_reads_writes_nothing_into_a_root(
    llama_runner: Command, tmp_path: Path, root: Path, command: str
) -> None:
    llama_runner(*command.split(), "--root", root)
    assert [entry.name for entry in root.iterdir()] == ["bins"]
    llama_runner(*command.split(), "--root", tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("rnu", 2, "error: there is no command 'rnu'\nhint: did you mean run?\n"),
        ("serv", 2, "hint: did you mean serve?\n"),
        ("plan --demo --host=", 2, "host: expected an address, got ''\nhint: leave it out for 127.0.0.1\n"),
        ("plan --demo --profile fast", 2, "hint: llama-runner tune MODEL --name fast makes it\n"),
        ("plan /dev/null", 3, "/dev/null is neither a file nor a directory"),
        ("convert --demo --output=", 2, "the output has no name\n"),
        ("quantize --demo -q ,", 2, "there is no quantization called ','"),
        ("plan cut.gguf", 3, "its header is truncated at byte 5000, or damaged"),
    ],
)
def test_13_13_odd_words_are_told_as_what_they_are(
    llama_runner: Command, root: Path, tmp_path: Path, words: str, code: int, said: str
) -> None:
    if "cut.gguf" in words:
        (tmp_path / "cwd" / "cut.gguf").write_bytes(Runner(root).prepare(demo=True).model.read_bytes()[:5000])
    says(llama_runner(*words.split(), env={"LLAMA_RUNNER_ROOT": str(root)}), code, said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_13_13_an_output_that_is_full_is_named(root: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*MODULE, "status", "--root", root], check=False, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (7, "error: standard output: No space left on device\n")
