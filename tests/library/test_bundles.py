"""``models export`` and ``models import``: models are carried to a machine without network and compiler."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY
from llama_runner.library.bundle_export import Exporter
from tests.conftest import MODULE, Command, says
from tests.e2e.serving import Running, ask
from tests.fakehub.hub import Hub
from tests.llama_cpp.stored import lay
from tests.shared_root import link_builds

Children = list["subprocess.Popen[str]"]
QUESTION, ANSWER = EXAMPLES[0]


@pytest.fixture
def no_compiler(tmp_path: Path) -> dict[str, str]:
    """Return an environment without compilers, and without a way to a network."""
    empty = tmp_path / "no programs"
    empty.mkdir()
    return {"PATH": str(empty), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "no cache")}


def events_of(running: Running, *kinds: str) -> list[str]:
    return [event["step"] for kind in kinds for event in running.of(kind)]


def test_14_06_a_bundle_is_all_that_another_machine_needs(
    root: Path, tmp_path: Path, llama_runner: Command, children: Children, no_compiler: dict[str, str]
) -> None:
    assert llama_runner("prepare", "--demo", "--root", root).code == 0
    bundle, other = tmp_path / "bundle.tar", tmp_path / "other"
    told = llama_runner("models", "export", "demo", "-o", bundle, "--programs", "--json", "--root", root)
    assert told.code == 0, told
    done = llama_runner("models", "import", bundle, "--json", "--root", other, env=no_compiler)
    assert done.code == 0, done
    assert done.json["programs"] == told.json["programs"]
    assert [Path(path).name for path in done.json["artifacts"]] == ["model.q4_k_m.gguf"]
    running = Running(children, "demo", "--offline", "--root", other, port=0, **no_compiler)
    assert events_of(running, "step_started", "step_finished") == []
    assert ask(running.url, QUESTION) == ANSWER
    listed = llama_runner("models", "list", "--json", "--root", other).json
    assert [(model["name"], model["quantizations"]) for model in listed] == [("demo", ["q4_k_m"])]


def test_14_06_models_of_the_hub_come_with_their_names_and_what_was_read_to_convert_them(
    hub: Hub, root: Path, tmp_path: Path, llama_runner: Command, no_compiler: dict[str, str]
) -> None:
    here = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf home")}
    hub.repo("acme/weights", {path.name: path for path in MODEL_DIRECTORY.iterdir() if path.is_file()})
    made = Runner(root).prepare(demo=True, quantization="q8_0").model
    hub.repo("acme/tiny-GGUF", {"tiny-Q8_0.gguf": made, "README.md": b"tiny"})
    names = ("acme/weights", "acme/tiny-GGUF:Q8_0")
    for name in names:
        assert llama_runner("prepare", name, "--root", root, env=here).code == 0
    bundle, other = tmp_path / "bundle.tar", tmp_path / "other"
    assert llama_runner("models", "export", *names, "-o", bundle, "--programs", "--root", root).code == 0
    done = llama_runner("models", "import", bundle, "--root", other, env=no_compiler)
    assert done.code == 0, done
    for name in (*names, "acme/tiny-GGUF", "acme/tiny-GGUF:q8_0"):
        prepared = llama_runner("prepare", name, "--offline", "--json", "--root", other, env=no_compiler)
        assert prepared.code == 0, prepared
        assert prepared.json["ran"] == [], name
    words = ("--prompt", QUESTION, "--temperature", "0", "--offline", "--root", other)
    asked = llama_runner("infer", "acme/weights", *words, env=no_compiler)
    assert asked.out == f"{ANSWER}\n", asked


def test_14_06_a_model_made_of_a_directory_is_run_by_its_name_where_that_is_not(
    root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    source = tmp_path / "my model"
    source.mkdir()
    for path in MODEL_DIRECTORY.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    assert llama_runner("prepare", source, "-q", "q8_0,q4_k_m", "--root", root).code == 0
    bundle, other = tmp_path / "bundle.tar", tmp_path / "other"
    link_builds(root, other)
    name = llama_runner("models", "list", "--json", "--root", root).json[0]["name"]
    assert llama_runner("models", "export", name, "-o", bundle, "--root", root).code == 0
    for path in (*source.iterdir(), source):
        path.unlink() if path.is_file() else path.rmdir()
    assert llama_runner("models", "import", bundle, "--root", other).code == 0
    asked = llama_runner(
        "infer", f"{name}:q8_0", "--prompt", QUESTION, "--temperature", "0", "--offline", "--root", other
    )
    assert asked.out == f"{ANSWER}\n", asked
    says(llama_runner("prepare", name, "--root", other), 2, f"fits {name}:q4_k_m, {name}:q8_0")
    assert "not a file or directory" in llama_runner("prepare", f"{name}:q2_k", "--root", other).err


@pytest.fixture
def demo(binaries: Path) -> Path:
    """Return a root that has the demo model."""
    return binaries


def test_14_06_the_same_models_give_the_same_bytes_on_every_machine(
    demo: Path, tmp_path: Path, llama_runner: Command
) -> None:
    first, second, packed = tmp_path / "1.tar", tmp_path / "2.tar", tmp_path / "3.tar.zst"
    assert llama_runner("models", "export", "demo", "demo:q4_k_m", "-o", first, "--root", demo).code == 0
    assert llama_runner("models", "export", "DEMO:q4_k_m", "demo", "-o", packed, "--root", demo).code == 0
    other = tmp_path / "other"
    assert llama_runner("models", "import", packed, "--root", other).code == 0
    told = llama_runner("models", "export", "demo", "-o", second, "--json", "--root", other)
    assert first.read_bytes() == second.read_bytes(), "also from the root that imported it"
    assert (
        subprocess.run(["sha256sum", second], check=True, capture_output=True, text=True).stdout[:64]
        == (told.json["sha256"])
    )
    assert packed.stat().st_size < first.stat().st_size
    with tarfile.open(first) as tar:
        members = tar.getmembers()
        manifest = tar.extractfile("bundle.json").read().decode()  # type: ignore[union-attr]
    assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in members} == {(0, 0, 0, "", "")}
    assert not re.search(r"/work|/home|/root|/tmp|mtime|logs/", manifest)
    assert not any(word in manifest for word in (str(demo), os.uname().nodename))


def test_14_06_a_bundle_goes_through_a_pipe(demo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with subprocess.Popen(
        [*MODULE, "models", "export", "demo", "-o", "-", "--root", str(demo)], stdout=subprocess.PIPE
    ) as sender:
        done = subprocess.run(
            [*MODULE, "models", "import", "-", "--json", "--root", str(other)],
            stdin=sender.stdout, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (sender.returncode, done.returncode) == (0, 0), done
    assert json.loads(done.stdout)["here"] == []
    assert next(other.glob("models/gguf/*/model.q4_k_m.gguf")).is_file()


def test_14_06_what_is_here_is_not_written_again(demo: Path, tmp_path: Path, llama_runner: Command) -> None:
    bundle, other = tmp_path / "bundle.tar", tmp_path / "other"
    assert llama_runner("models", "export", "demo:q4_k_m", "-o", bundle, "--root", demo).code == 0
    assert llama_runner("models", "import", bundle, "--root", other).code == 0
    (model,) = other.glob("models/gguf/*/model.q4_k_m.gguf")
    before = model.stat()
    again = llama_runner("models", "import", bundle, "--json", "--root", other).json
    assert (again["artifacts"], again["here"]) == ([], [model.relative_to(other).as_posix()])
    assert (model.stat().st_ino, model.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    model.write_bytes(b"damaged")
    assert llama_runner("models", "import", bundle, "--json", "--root", other).json["here"] == []
    assert model.stat().st_size == before.st_size, "what is damaged is written anew"


def test_14_06_of_names_that_mean_nothing_or_too_much_nothing_is_written(
    demo: Path, tmp_path: Path, llama_runner: Command
) -> None:
    bundle = tmp_path / "bundle.tar"
    at = ("-o", bundle, "--root", demo)
    says(
        llama_runner("models", "export", "dema", *at), 2, "no model of the store is called 'dema'", "did you mean demo?"
    )
    says(llama_runner("models", "export", "demo", "demo:q2_k", *at), 2, "not here as 'q2_k'")
    says(llama_runner("models", "export", "a\x1b[31mb", *at), 2, r"\x1b[31m")
    assert llama_runner("models", "export", *at).code == 2
    bundle.write_text("mine")
    says(llama_runner("models", "export", "demo", *at), 2, "bundle.tar exists")
    assert bundle.read_text() == "mine"
    says(llama_runner("models", "export", "demo", "-o", tmp_path / "no" / "x.tar", "--root", demo), 7)
    says(llama_runner("models", "export", "demo", "-o", "-", "--json", "--root", demo), 2, "both write to standard")


def test_14_06_a_file_that_is_not_the_recorded_one_is_not_exported(
    root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    made = Runner(root).prepare(demo=True).model
    bundle = tmp_path / "bundle.tar"
    content = bytearray(made.read_bytes())
    content[-1] ^= 1
    made.write_bytes(content)
    says(llama_runner("models", "export", "demo", "-o", bundle, "--root", root), 7, "is not the file of its record")
    made.write_bytes(content[:-1])
    says(llama_runner("models", "export", "demo", "-o", bundle, "--root", root), 7, "is not the file of its record")
    made.unlink()
    says(llama_runner("models", "export", "demo", "-o", bundle, "--root", root), 2, "only its records")
    assert [path.name for path in tmp_path.iterdir() if "bundle" in path.name] == []


def test_14_06_a_killed_import_leaves_staging_that_the_next_run_removes(
    demo: Path, root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    bundle = tmp_path / "bundle.tar"
    assert llama_runner("models", "export", "demo:q4_k_m", "-o", bundle, "--root", demo).code == 0
    content = bundle.read_bytes()
    child = subprocess.Popen([*MODULE, "models", "import", "-", "--root", str(root)], stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(content[: len(content) // 2])
    child.stdin.flush()
    staging = root / ".llama_runner" / "staging"
    while not any(path.stat().st_size for path in staging.rglob("*.gguf")):
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(child.wait(timeout=0.02))
    child.kill()
    child.communicate()
    assert list(staging.iterdir())
    assert not (root / "models").exists()
    assert llama_runner("prepare", "--demo", "--root", root).code == 0
    assert not list(staging.iterdir())
    assert llama_runner("models", "import", bundle, "--root", root).code == 0


@pytest.mark.parametrize(
    ("laid", "why"),
    [
        ({"platform": "windows-arm64"}, "is for windows-arm64"),
        ({"cpu": "sse2 avx512_bitalg_of_2099"}, "was built for a processor with avx512_bitalg_of_2099"),
        ({"backend": "cpu"}, "cpu-b1-"),
    ],
)
def test_14_06_programs_that_do_not_work_here_are_left_out_and_the_models_are_imported(
    demo: Path, tmp_path: Path, laid: dict[str, str], why: str
) -> None:
    there = tmp_path / "there"
    Runner(demo).models.export("demo:q4_k_m", output=tmp_path / "first.tar")
    Runner(there).models.import_bundle(tmp_path / "first.tar")
    programs = lay(there, **laid)  # type: ignore[arg-type]
    exporter = Exporter(Runner(there).store, lambda _event: None)
    exporter.export(["demo"], tmp_path / "second.tar", programs=programs)
    told: list[str] = []
    other = Runner(tmp_path / "other", on_event=lambda event: told.append(getattr(event, "text", "")))
    found = other.models.import_bundle(tmp_path / "second.tar")
    assert found.programs is None or why.startswith("cpu-b1")
    assert len(found.artifacts) == 1
    assert not list((tmp_path / "other").glob("bins/*/*"))
    assert any("the models are imported without programs" in text for text in told)
    if not why.startswith("cpu-b1"):
        assert why in str(found.left_out)


def test_14_06_four_processes_that_import_at_once_do_the_work_of_one(
    demo: Path, tmp_path: Path, llama_runner: Command
) -> None:
    bundle, other = tmp_path / "bundle.tar", tmp_path / "other"
    assert llama_runner("models", "export", "demo:q4_k_m", "-o", bundle, "--root", demo).code == 0
    words = [*MODULE, "models", "import", str(bundle), "--json", "--root", str(other)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    found = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0, 0]
    assert sorted(len(each["artifacts"]) for each in found) == [0, 0, 0, 1]
    assert sorted(len(each["here"]) for each in found) == [0, 1, 1, 1]
    assert not list((other / ".llama_runner" / "staging").iterdir())


def test_14_06_a_full_disk_and_a_store_that_cannot_be_written(
    demo: Path, tmp_path: Path, llama_runner: Command, read_only: object, other_file_system: Path
) -> None:
    bundle = tmp_path / "bundle.tar"
    assert llama_runner("models", "export", "demo:q4_k_m", "-o", bundle, "--root", demo).code == 0
    limited = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))\n"
        "from llama_runner.__main__ import main\nsys.exit(main())"
    )
    full = tmp_path / "full"
    words = [sys.executable, "-c", limited, "models", "import", str(bundle), "--root", str(full)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "no space left" in done.stderr) == (7, True), done
    assert not (full / "models").exists()
    assert not list((full / ".llama_runner" / "staging").iterdir())
    closed = tmp_path / "closed"
    closed.mkdir()
    read_only(closed)  # type: ignore[operator]
    says(llama_runner("models", "import", bundle, "--root", closed), 7, "cannot write to")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "models").symlink_to(other_file_system)
    assert llama_runner("models", "import", bundle, "--root", linked).code == 0
    assert next(linked.glob("models/gguf/*/model.q4_k_m.gguf")).is_file(), "models/ may be on another file system"


def test_14_06_the_library_imports_and_exports_with_streams(demo: Path, tmp_path: Path) -> None:
    with (tmp_path / "b").open("wb") as file:
        told = Runner(demo).models.export("demo:q4_k_m", output=file)
    assert told.output is None
    events: list[str] = []
    with (tmp_path / "b").open("rb") as file:
        found = Runner(tmp_path / "other", on_event=lambda event: events.append(event.name)).models.import_bundle(file)
    assert found.models == told.models
    assert "step_progress" in events
