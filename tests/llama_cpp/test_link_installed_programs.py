"""Programs of the system, or of a directory that the user names: taken where they lie, once they prove themselves."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from llama_runner.core.errors import LlamaRunnerError, SourceError, StepError, ToolError
from llama_runner.llama_cpp.system_binaries import AdoptedPrograms, open_adopted
from llama_runner.steps.link_installed_programs import LIST, AdoptPrograms, program_path
from llama_runner.store.digest_cache import hash_file
from llama_runner.system import hardware
from tests.llama_cpp.executable_heads import elf
from tests.llama_cpp.stored import HERE
from tests.llama_cpp.tiny_llama import Bench

pytestmark = pytest.mark.skipif(os.name == "nt", reason="they are copied there")


@pytest.fixture
def system(tmp_path: Path, programs: Path) -> Path:
    """Return a directory of a system with the real programs in it and others; with a library elsewhere."""
    directory = tmp_path / "usr" / "bin"
    directory.mkdir(parents=True)
    for name in ("llama-server", "llama-quantize"):
        os.link(programs / name, directory / name)
    (directory / "ls").write_text("another program")
    (tmp_path / "usr" / "lib" / "x86_64-linux-gnu").mkdir(parents=True)
    write(tmp_path / "usr" / "lib" / "x86_64-linux-gnu" / "libllama.so.0", "library")
    write(tmp_path / "usr" / "lib" / "libc.so.6", "another library")
    return directory


def write(path: Path, text: str, *, mode: int = 0o755) -> Path:
    """Write a program with a fixed time, as packages have it."""
    path.write_text(text)
    path.chmod(mode)
    os.utime(path, (1e9 + len(text), 1e9))
    return path


def adopt(where: Path | None, **environment: str) -> AdoptPrograms:
    found = open_adopted(where, environment=environment)
    return AdoptPrograms(found, str(found.path), found.server, os_and_arch=HERE)


def covered(step: AdoptPrograms) -> set[str]:
    return set(step.programs.files())


def test_programs_on_the_path_are_adopted_where_they_lie_and_proven(bench: Bench, system: Path) -> None:
    step = adopt(None, PATH=f"/nowhere:{system}")
    place = bench.execute(step).places[step]
    directory = bench.store.path(place)
    assert directory.parent == bench.root / "bins" / HERE
    assert directory.name.startswith("system-")
    assert {path.name for path in directory.iterdir()} == {"llama-server", "llama-quantize", LIST, ".state.json"}
    assert (directory / "llama-server").readlink() == system / "llama-server"
    assert f"{hash_file(system / 'llama-server')}  {system / 'llama-server'}\n" in (directory / LIST).read_text()
    record = bench.store.record(place)
    assert record is not None
    assert record.facts["proven"]
    assert record.facts["build"] == 10605
    assert record.source["ref"] == str(system)


@pytest.mark.usefixtures("settled")
def test_what_is_adopted_is_not_read_again_while_it_is_as_it_was(
    bench: Bench, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = adopt(programs)
    bench.execute(step)
    bench.ran()
    monkeypatch.setattr("llama_runner.llama_cpp.system_binaries.hash_file", lambda *_: pytest.fail("it was read"))
    monkeypatch.setattr("sqlite3.connect", lambda *_, **__: pytest.fail("a database was opened"))
    bench.execute(adopt(programs))
    assert bench.ran() == []


def test_an_upgrade_is_noticed_even_if_only_a_library_changes(bench: Bench, system: Path) -> None:
    step = adopt(system)
    before = bench.execute(step)
    write(system / "../lib/x86_64-linux-gnu/libllama.so.0", "new library")
    after = bench.execute(again := adopt(system))
    assert bench.ran() == ["adopt", "adopt"]
    assert before.digests[step] != after.digests[again], "links look the same, and are not"
    assert before.places[step] != after.places[again]


@pytest.mark.usefixtures("settled")
def test_11_04_an_upgrade_to_a_program_of_the_same_size_and_time_is_noticed(bench: Bench, system: Path) -> None:
    library = system / "../lib/x86_64-linux-gnu/libllama.so.0"
    before = bench.execute(step := adopt(system))
    write(library, "LIBRARY")
    after = bench.execute(again := adopt(system))
    assert before.digests[step] != after.digests[again]


def test_the_digest_covers_what_is_used_and_nothing_else(system: Path) -> None:
    assert covered(adopt(system)) == {"llama-server", "llama-quantize", "../lib/x86_64-linux-gnu/libllama.so.0"}
    write(system / "libggml-cpu-haswell.so", "beside the programs")
    write(system / "libomp.so.5", "beside the programs")
    assert {"libggml-cpu-haswell.so", "libomp.so.5"} <= covered(adopt(system))


def test_a_directory_a_program_and_the_variable_name_the_same(system: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(system / "llama-server")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "llama-server").symlink_to(system / "llama-server")
    expected = AdoptedPrograms(system, "llama-server").path
    for step in (
        adopt(system),
        adopt(system / "llama-server"),
        adopt(system.parent),
        adopt(None, LLAMA_SERVER_BINS_DIR=str(system), PATH="/nowhere"),
        adopt(tmp_path / "other"),
    ):
        assert step.programs.path == expected
        assert step.server == "llama-server"


def test_a_program_that_goes_by_its_name_keeps_it(system: Path) -> None:
    (system / "llama-server").rename(system / "llama")
    (system / "llama-server").symlink_to("llama")
    assert adopt(system).server == "llama-server"


def test_a_script_is_fine_if_it_proves_itself(bench: Bench, system: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    mine = write(tmp_path / "mine" / "my-server", f'#!/bin/sh\nexec {system}/llama-server "$@"\n')
    step = adopt(mine)
    directory = bench.store.path(bench.execute(step).places[step])
    assert (directory / "llama-server").readlink() == mine


def test_a_script_that_only_says_that_it_is_one_is_refused(bench: Bench, tmp_path: Path) -> None:
    fake = write(tmp_path / "llama-server", "#!/bin/sh\necho 'version: 10605 (abc)' >&2\n")
    with pytest.raises(LlamaRunnerError):
        bench.execute(adopt(fake))
    assert not (bench.root / "bins").exists()


def test_programs_for_another_machine_are_named_with_both(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "llama-server").write_bytes(elf(243))
    (tmp_path / "llama-server").chmod(0o755)
    with pytest.raises(StepError, match=f"is for linux-riscv64, not for {hardware.platform_tag()}"):
        bench.execute(adopt(tmp_path))


def test_where_there_is_none_it_says_so(system: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no llama-server on PATH") as caught:
        adopt(None, PATH=str(tmp_path))
    assert caught.value.code == 5
    assert "LLAMA_SERVER_BINS_DIR" in str(caught.value.hint)
    with pytest.raises(ToolError, match=f"no llama-server in {tmp_path}"):
        adopt(tmp_path)
    with pytest.raises(SourceError, match="does not exist"):
        adopt(None, LLAMA_SERVER_BINS_DIR=str(tmp_path / "nothing"), PATH=str(system))
    shutil.copy(system / "llama-server", tmp_path / "llama-server")
    (tmp_path / "llama-server").chmod(0o644)
    with pytest.raises(ToolError, match="is not executable") as not_executable:
        adopt(tmp_path)
    assert "chmod +x" in str(not_executable.value.hint)


def test_programs_that_go_away_are_said_to_be_gone(system: Path) -> None:
    source = open_adopted(system, environment={})
    (system / "llama-server").unlink()
    with pytest.raises(ToolError, match="there is no"):
        source.files()


def test_without_llama_quantize_it_serves_until_something_must_be_quantized(
    bench: Bench, programs: Path, tmp_path: Path
) -> None:
    (tmp_path / "only").mkdir()
    os.link(programs / "llama-server", tmp_path / "only" / "llama-server")
    step = adopt(tmp_path / "only")
    directory = bench.store.path(bench.execute(step).places[step])
    assert program_path(directory, "llama-server").is_file()
    with pytest.raises(ToolError, match="system's programs lack llama-quantize"):
        program_path(directory, "llama-quantize")
