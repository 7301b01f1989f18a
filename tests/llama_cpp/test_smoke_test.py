"""Programs prove themselves before they are relied on: a real build, and small programs, each wrong in its own way."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pytest

from llama_runner.core.errors import ExitCode, LlamaRunnerError
from llama_runner.core.plan import Snapshot
from llama_runner.core.step import Place, Step, unkeyed
from llama_runner.demo import ANSWER
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.serving.smoke_test import PROVEN, Expected, prove
from llama_runner.serving.smoke_test_errors import (
    AnotherArchitecture,
    CannotRun,
    Crashed,
    Fake,
    IllegalInstruction,
    MissingLibrary,
    NoDevice,
    NotReady,
    Rejected,
    WrongSentence,
    WrongVersion,
    rejected,
    rejection,
    remember_rejection,
)
from llama_runner.store.artifacts import Store
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

posix = pytest.mark.skipif(sys.platform == "win32", reason="the small programs are scripts")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the small programs are made for Linux")

VERSION = "version: 0.2.0 (build 7, commit abc1234)"
FAKE = Path(__file__).parents[1] / "serving" / "fake_llama_server.py"
RejectedKind = TypeVar("RejectedKind", bound=Rejected)
SAYS = f"""
case "$1" in
--version) echo '{VERSION}' >&2; exit 0 ;;
--list-devices) printf 'Available devices:\\n%s\\n' 'DEVICES'; exit 0 ;;
esac
"""
"""What a llama-server that is honest so far does; what it does when it is to serve comes after it."""


class Proven(Step):
    """A directory of programs that lies there and has to prove itself."""

    programs: Path = unkeyed(Path())
    expected: Expected = unkeyed(Expected())
    patience: float = unkeyed(60.0)
    kind: ClassVar[str] = "proven"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        return Place("bins/proven", "done")

    def run(self, workspace: Workspace) -> None:
        prove(self.programs, self.expected, workspace, patience=self.patience)
        workspace.target.touch()


def run(store: Store, step: Step) -> Mapping[str, Any]:
    observer = Observer(store, None)  # type: ignore[arg-type]
    plan = observer.plan([step], Snapshot())
    outcome = Executor(store, observer, lambda _event: None, lock_timeout=10).execute(plan)
    record = store.record(outcome.places[step])
    assert record is not None
    return record.facts


class Court:
    """A root in which programs are proven, and what has to be gone afterwards."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs = root / "programs"
        self.programs.mkdir()
        self.store = Store(root / "a röot", lambda _event: None)

    def script(self, text: str, name: str = "llama-server") -> None:
        (self.programs / name).write_text(f"#!/bin/sh\necho $$ >> '{self.root}/pids'\n{text}\n")
        (self.programs / name).chmod(0o755)

    def serving(self, *, devices: str = "  (none)", **fake: Any) -> None:
        """Lay down a llama-server that is honest until it serves, and then does as ``fake`` asks."""
        words = shlex.join([sys.executable, "-I", "-S", str(FAKE)])
        self.script(f'{SAYS.replace("DEVICES", devices)}\nGGML_FAKE={shlex.quote(json.dumps(fake))} exec {words} "$@"')

    def compile(self, text: str, *words: object, output: str = "llama-server") -> None:
        source = self.root / "program.c"
        source.write_text(text)
        subprocess.run(["cc", "-o", self.programs / output, source, *map(str, words)], check=True)

    def prove(self, expected: Expected | None = None, **how: Any) -> Mapping[str, Any]:
        """Return the facts of a proof that succeeds."""
        return run(self.store, Proven(programs=self.programs, expected=expected or Expected(), **how))

    def rejects(self, kind: type[RejectedKind], expected: Expected | None = None, **how: Any) -> RejectedKind:
        """Return why a proof fails; nothing is kept then."""
        with pytest.raises(kind) as caught:
            self.prove(expected, **how)
        assert not (self.store.root / "bins" / "proven" / "done").exists()
        return caught.value

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in (self.store.root / "logs").iterdir())

    def pids(self) -> list[int]:
        path = self.root / "pids"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def check_nothing_is_left(self) -> None:
        for pid in self.pids():
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        assert not any((self.store.private / "staging").glob("*"))
        assert not any(Path.cwd().iterdir()), "a crash leaves no core where the user is"


@pytest.fixture
def court(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Court]:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    court = Court(tmp_path)
    yield court
    court.check_nothing_is_left()


@pytest.fixture
def built(binaries: Path) -> Path:
    return max((binaries / "bins" / hardware.platform_tag()).glob("cpu-b*"), key=lambda path: path.stat().st_mtime)


def test_the_real_build_is_proven(court: Court, built: Path) -> None:
    shutil.copytree(built, court.programs, dirs_exist_ok=True)
    facts = court.prove(Expected(build=10605))
    assert facts["proven"] == PROVEN
    assert (facts["build"], facts["commit"], facts["backend"], facts["devices"]) == (10605, None, "cpu", [])
    assert "(build 10605, commit unknown)" in facts["version"]
    assert "listening on" in court.log(), "what the server said is in the step's log"


@posix
def test_older_releases_say_their_version_in_another_way(court: Court) -> None:
    court.serving(sentence=ANSWER)
    path = court.programs / "llama-server"
    path.write_text(path.read_text().replace(VERSION, "version: 4321 (abcdef0)"))
    facts = court.prove(Expected(build=4321, commit="abcdef0123456789"))
    assert (facts["version"], facts["build"], facts["commit"]) == ("4321 (abcdef0)", 4321, "abcdef0")


@posix
@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (Expected(build=8), "llama-server is build 7, not build 8"),
        (Expected(commit="abd"), "llama-server is commit abc1234, not commit abd"),
    ],
)
def test_another_build_or_commit_is_rejected(court: Court, expected: Expected, text: str) -> None:
    court.serving(sentence=ANSWER)
    assert str(court.rejects(WrongVersion, expected)) == text


@posix
def test_a_plausible_version_and_nothing_else_is_rejected(court: Court) -> None:
    court.script(f"echo '{VERSION}'")
    assert court.rejects(Fake).what == "lists no devices"
    court.script(f"{SAYS}\nexit 0")
    assert court.rejects(Fake).what == "ends by itself and serves nothing"
    court.script("touch core; exit 0")
    error = court.rejects(Fake)
    assert (error.what, error.cause) == ("says no version", "not llama.cpp")


@posix
def test_pain_16_a_build_whose_backend_finds_no_device_is_rejected(court: Court) -> None:
    court.serving(sentence=ANSWER)
    error = court.rejects(NoDevice, Expected(backend="cuda"))
    assert str(error).startswith("llama-server finds no device for cuda here (none)")
    court.serving(devices="  Vulkan0: llvmpipe (LLVM 15, 256 bits) (1 MiB, 1 MiB free)", sentence=ANSWER)
    assert court.rejects(NoDevice, Expected(backend="cuda+rpc")).devices == ("Vulkan0",)
    assert court.prove(Expected(backend="vulkan+rpc"))["devices"] == ["Vulkan0"]


@posix
def test_a_model_that_says_another_sentence_is_computed_wrongly(court: Court) -> None:
    court.serving(sentence="A step is one piece of the of the")
    error = court.rejects(WrongSentence)
    assert error.said == "A step is one piece of the of the"
    assert error.cause == "wrong sentence"
    court.serving()
    assert court.rejects(WrongSentence).said is None


@posix
@pytest.mark.parametrize("when", ["die_loading", "die_answering"])
def test_whoever_dies_while_it_serves_is_rejected_with_its_last_lines(court: Court, when: str) -> None:
    dying: dict[str, Any] = {when: -signal.SIGSEGV, "load_until": str(court.root), "say": "I am here\n"}
    court.serving(**dying)
    error = court.rejects(Crashed)
    assert error.status == -signal.SIGSEGV
    assert "I am here" in error.tail
    court.serving(**{**dying, when: -signal.SIGILL})
    assert court.rejects(IllegalInstruction).cause == "illegal instruction"


@posix
def test_pain_19_an_illegal_instruction_is_told_from_other_crashes_also_in_a_library(court: Court) -> None:
    trap = "#include <signal.h>\n__attribute__((constructor)) void trap(void) { raise(SIGILL); }"
    court.compile(f"{trap}\nint used(void) {{ return 0; }}", "-shared", "-fPIC", output="libtrap.so")
    court.compile("int used(void); int main(void) { return used(); }", court.programs / "libtrap.so")
    error = court.rejects(IllegalInstruction)
    assert str(error).startswith("llama-server was ended by an illegal instruction: it was built for another processor")
    (court.programs / "llama-server").rename(court.programs / "inner")
    court.script(f"'{court.programs}/inner'")
    court.rejects(IllegalInstruction)


@linux
def test_a_missing_library_is_named(court: Court) -> None:
    court.compile("int used(void) { return 0; }", "-shared", "-fPIC", output="libnothere.so.1")
    court.compile("int used(void); int main(void) { return used(); }", court.programs / "libnothere.so.1")
    (court.programs / "libnothere.so.1").unlink()
    error = court.rejects(MissingLibrary)
    assert error.library is not None
    assert error.library.endswith("libnothere.so.1")
    assert error.hint == "install it, or build it here"


@pytest.mark.parametrize(
    ("line", "library", "resolution"),
    [
        ("x: error while loading shared libraries: libgomp.so.1: cannot open", "libgomp.so.1", "libgomp1"),
        ("x: error while loading shared libraries: libcudart.so.12: cannot", "libcudart.so.12", "nvidia-cuda-toolkit"),
        ("x: error while loading shared libraries: libcuda.so.1: cannot open", "libcuda.so.1", "--gpus all"),
        ("Error loading shared library libvulkan.so.1: No such file", "libvulkan.so.1", "libvulkan1"),
        ("dyld[1]: Library not loaded: @rpath/libggml.dylib", "@rpath/libggml.dylib", "build it here"),
        ("lib/libc.so.6: version `GLIBC_2.38' not found (required by x)", "GLIBC_2.38", "newer system"),
    ],
)
def test_what_each_loader_says_of_a_missing_library_is_understood(line: str, library: str, resolution: str) -> None:
    error = rejection("llama-server", "with --version", 127, ["before", line, "after"], "log")
    assert isinstance(error, MissingLibrary)
    assert error.library == library
    assert resolution in (error.hint or "")


@linux
def test_a_program_for_another_architecture_is_rejected_without_being_run(court: Court) -> None:
    program = court.programs / "llama-server"
    data = bytearray(Path(sys.executable).resolve().read_bytes()[:4096])
    data[18:20] = (22).to_bytes(2, "little")
    program.write_bytes(data)
    program.chmod(0o755)
    error = court.rejects(AnotherArchitecture)
    assert (error.found, error.wanted) == (("linux-s390x",), hardware.platform_tag())


@linux
def test_what_the_system_does_not_start_is_rejected_with_its_reason(court: Court) -> None:
    assert str(court.rejects(CannotRun)) == "llama-server cannot be run: there is none"
    program = court.programs / "llama-server"
    program.write_bytes(b"not a program at all")
    assert court.rejects(CannotRun).why == "it is no executable"
    program.write_text("#!/bin/sh\n")
    assert court.rejects(CannotRun).why == "permission denied"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    assert court.rejects(CannotRun).why == "no such file or directory"
    program.write_bytes(Path(sys.executable).resolve().read_bytes()[:200])
    assert isinstance(court.rejects(Rejected), CannotRun | Crashed)


@posix
def test_the_other_programs_have_to_answer_too(court: Court) -> None:
    court.serving(sentence=ANSWER)
    court.script("echo 'usage: llama-quantize model.gguf type'; exit 1", "llama-quantize")
    assert court.rejects(Fake).what == "names no types"
    court.script("echo ' 7 or Q8_0 : 7.96G'; exit 1", "llama-quantize")
    court.script("exit 3", "ggml-rpc-server")
    error = court.rejects(Crashed)
    assert (error.program, error.status) == ("ggml-rpc-server", 3)


@posix
def test_a_program_that_neither_answers_nor_ends_is_ended(court: Court) -> None:
    court.script("echo I think; sleep 3600 & wait")
    error = court.rejects(NotReady, patience=0.3)
    assert (error.doing, error.seconds) == ("with --version", 0.3)


@posix
def test_a_server_that_talks_and_is_never_ready_is_ended(court: Court) -> None:
    court.script(f"{SAYS}\nwhile :; do echo still loading; sleep 0.05; done")
    error = court.rejects(NotReady, patience=1.5)
    assert error.doing == "serving the demo model"
    assert error.tail[-1] == "still loading"


@posix
@pytest.mark.parametrize("when", ["asking", "loading", "answering"])
def test_ctrl_c_stops_a_proof_wherever_it_is(court: Court, when: str) -> None:
    arrived = court.root / "arrived"
    if when == "asking":
        court.script(f"touch '{arrived}'; sleep 3600 & wait")
    elif when == "loading":
        court.script(f"{SAYS}\ntouch '{arrived}'; sleep 3600 & wait")
    else:
        court.serving(load_until=str(court.root), asked=str(arrived))
    words = [sys.executable, "-m", "tests.llama_cpp.test_smoke_test", str(court.store.root), str(court.programs)]
    child = subprocess.Popen(words, cwd=Path(__file__).parents[2])
    try:
        while not arrived.exists():
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == ExitCode.INTERRUPTED
    finally:
        child.kill()
        child.wait()


def test_what_was_rejected_is_remembered_with_its_reason(tmp_path: Path) -> None:
    private = tmp_path / ".llama_runner"
    assert rejected(private) == {}
    remember_rejection(private, "key1:a", "illegal instruction")
    remember_rejection(private, "key1:b", "crashed")
    remember_rejection(private, "key1:a", "wrong sentence")
    assert rejected(private) == {"key1:a": "wrong sentence", "key1:b": "crashed"}
    (file,) = private.iterdir()
    for damage in (b"", b"[]", b'{"key1:a": 1}', b"\xff", b"[" * 100_000):
        file.write_bytes(damage)
        assert rejected(private) == {}
    for number in range(101):
        remember_rejection(private, str(number), "crashed")
    assert list(rejected(private))[-1] == "100"
    assert len(rejected(private)) == 100


if __name__ == "__main__":
    try:
        run(Store(Path(sys.argv[1]), lambda _event: None), Proven(programs=Path(sys.argv[2])))
    except LlamaRunnerError as error:
        sys.exit(error.code)
