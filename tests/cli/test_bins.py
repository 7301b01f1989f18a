"""The commands about llama.cpp's programs, with programs that were really built."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.cli.bins_cmds import bins
from llama_runner.core.artifact_record import STATE_FILE, TREE, format_state
from llama_runner.llama_cpp.find_installed_build import open_programs
from tests.conftest import REPOSITORY, Command, Result
from tests.fakereleases.server import Releases
from tests.llama_cpp.stored import HERE, lay, store_in


@pytest.fixture
def build(binaries: Path) -> Path:
    """Return the programs that the demo model takes."""
    return Runner(binaries).plan(demo=True).spec.binary.parent


@pytest.fixture
def machine_there(build: Path, tmp_path: Path) -> Path:
    """Return a root that has them as its own: files may go there and stay here."""
    root = tmp_path / "thère"
    copy = root / "bins" / HERE / build.name
    copy.mkdir(parents=True)
    for path in build.iterdir():
        os.link(path, copy / path.name)
    return root


def test_pain_18_one_machine_builds_and_another_imports_and_compiles_nothing(
    llama_runner: Command, machine_there: Path, build: Path, tmp_path: Path
) -> None:
    archive, here = tmp_path / "packed.tar.gz", tmp_path / "hère"
    packed = llama_runner("bins", "export", build.name, "-o", archive, "--root", machine_there)
    assert packed.code == 0, packed
    assert packed.out.startswith(f"{archive}   (")
    with ThreadPoolExecutor(2) as both:  # one of two that come at once takes it in, the other waits and finds it
        calls = [both.submit(llama_runner, "bins", "import", archive, "--root", here) for _ in range(2)]
    path = here / "bins" / HERE / build.name
    assert sorted(call.result().out for call in calls) == [
        f"{build.name}   imported   {path}\n",
        f"{build.name}   is here already   {path}\n",
    ]
    prepared = llama_runner("prepare", "--demo", "--json", "--root", here)
    assert prepared.code == 0, prepared
    assert sorted(prepared.json["ran"]) == ["convert", "quantize"], "nothing is fetched, unpacked or compiled"
    assert Path(prepared.json["server"]).parent == path
    (listed,) = llama_runner("bins", "list", "--json", "--root", here).json
    assert (listed["origin"], listed["problem"], listed["in_use"]) == ("imported", None, False)
    assert listed["proven"]


def test_pain_20_builds_are_listed_chosen_rolled_back_and_removed(
    llama_runner: Command, machine_there: Path, build: Path
) -> None:
    old = lay(machine_there, build=1, at="2020-01-01T00:00:00Z")
    foreign = lay(machine_there, build=2, platform="plan9-vax")
    (foreign / STATE_FILE).unlink()

    def run(*words: str) -> str:
        done = llama_runner("bins", *words, "--root", machine_there)
        assert done.code == 0, done
        return done.out

    listed = run("list")
    assert re.search(rf"^{old.name} +b1 \(5f0c1d2e3\) +built +9 B +\d+ d +demo model$", listed, re.MULTILINE), listed
    assert re.search(rf"^plan9-vax/{foreign.name} .* damaged: it has no record$", listed, re.MULTILINE), listed
    assert run("use", old.name[-8:]) == f"in use: {old.name}   (bins rollback goes back)\n"
    assert run("path") == f"{old}\n"
    assert run("use", build.name) == f"in use: {build.name}   (bins rollback goes back)\n"
    assert re.search(rf"^{build.name} .* in use$", run("list"), re.MULTILINE)
    assert run("rollback") == f"in use: {old.name}\n"
    assert run("rollback", "--json") == '{"in_use": "auto"}\n'
    assert run("remove", "--unused") == f"removed   {old.name}   (9 B)\n"
    assert run("remove", f"plan9-vax/{foreign.name}") == f"removed   {foreign.name}   (0 B)\n"
    assert [path.name for path in (machine_there / "bins" / HERE).iterdir()] == [build.name]
    assert run("remove", "--unused") == ""


def test_13_09_what_a_run_takes_without_a_choice_is_removed_only_with_force(
    llama_runner: Command, machine_there: Path, build: Path
) -> None:
    refused = llama_runner("bins", "remove", build.name, "--root", machine_there)
    says = f"error: {build.name} is what a run takes\nhint: insist with --force; the next run makes it anew\n"
    assert (refused.code, refused.err) == (2, says)
    assert build.is_dir()
    removed = llama_runner("bins", "remove", build.name, "--force", "--json", "--root", machine_there)
    assert removed.json == {"removed": [build.name]}


def test_the_programs_of_a_running_server_stay(llama_runner: Command, machine_there: Path, build: Path) -> None:
    words = ("--root", machine_there)
    started = llama_runner("run", "--demo", "--detach", "--port", "0", *words)
    assert started.code == 0, started
    try:
        listed = llama_runner("bins", "list", *words)
        assert re.search(r" runs demo:q4_k_m \(process \d+\)$", listed.out, re.MULTILINE), listed
        refused = llama_runner("bins", "remove", build.name, "--force", *words)
        assert refused.code == 7
        assert re.search(r" is used by demo:q4_k_m \(process \d+, http://127.0.0.1:\d+\)\n", refused.err), refused
    finally:
        assert llama_runner("stop", "--all", *words).code == 0
    assert llama_runner("bins", "remove", build.name, "--force", *words).code == 0


def test_what_is_chosen_is_what_later_runs_take_and_needs_no_compiler(
    llama_runner: Command, machine_there: Path, build: Path
) -> None:
    words, bare = ("--demo", "--json", "--root", machine_there), {"PATH": "/nonexistent"}
    moved = machine_there / "bins" / HERE / build.name
    (moved / "llama-server").unlink()
    shutil.copy(build / "llama-server", moved)  # what is moved with its root is the same under another stamp
    (moved / STATE_FILE).unlink()
    [record] = store_in(machine_there).records(build).values()
    (moved / STATE_FILE).write_bytes(format_state({TREE: record.replace(noted={})}))
    assert llama_runner("plan", *words, env=bare).code == 5, "to build, a compiler is needed"
    assert llama_runner("bins", "use", build.name, "--root", machine_there).code == 0
    prepared = llama_runner("prepare", *words, env=bare)
    assert prepared.code == 0, prepared
    assert prepared.json["server"] == str(moved / "llama-server")
    assert "compile" not in {*prepared.json["ran"], *prepared.json["skipped"]}
    assert not open_programs(store_in(machine_there), build.name).restamp, "it is not read again"
    (moved / "llama-server").unlink()
    refused = llama_runner("prepare", *words, env=bare)
    assert refused.code == 7
    assert f'"error": "{build.name} cannot be used: its files are not those that were made"' in refused.err
    assert "`bins use auto`" in refused.err
    assert llama_runner("bins", "use", "auto", "--root", machine_there).out.startswith("in use: auto")


@pytest.mark.skipif(os.name == "nt", reason="there they are copied, not linked to")
def test_programs_of_the_system_that_were_upgraded_are_not_what_was_chosen(
    llama_runner: Command, build: Path, tmp_path: Path
) -> None:
    there, words = tmp_path / "opt", ("--root", tmp_path / "root")
    there.mkdir()
    for program in ("llama-server", "llama-quantize"):
        shutil.copy(build / program, there)
    made = llama_runner("bins", "install", there, "--json", *words)
    assert made.code == 0, made
    assert llama_runner("bins", "use", "system", *words).out.startswith(f"in use: {made.json['name']} ")
    assert f"{there}/llama-server" in os.path.realpath(Path(made.json["path"]) / "llama-server")
    assert llama_runner("plan", "--demo", *words).code == 0
    with (there / "llama-server").open("ab") as file:
        file.write(b"a newer one")
    refused = llama_runner("plan", "--demo", *words)
    assert refused.code == 7
    assert "cannot be used: the programs that it links to are others now" in refused.err
    (listed,) = llama_runner("bins", "list", "--json", *words).json
    assert (listed["origin"], listed["problem"]) == ("system", "the programs that it links to are others now")


def test_programs_that_are_here_are_not_built_again(llama_runner: Command, machine_there: Path, build: Path) -> None:
    made = llama_runner("bins", "build", "--json", "--root", machine_there)
    assert made.code == 0, made
    assert (made.json["name"], made.json["ran"]) == (build.name, [])
    assert made.json["facts"]["build"] > 0


@pytest.mark.skipif(HERE != "linux-x86_64", reason="the release that is listed is for that")
def test_a_release_is_installed_from_the_listing_and_the_same_archive_is_not_unpacked_twice(
    llama_runner: Command, build: Path, tmp_path: Path
) -> None:
    number = int(build.name.split("-b")[1].partition("-")[0])
    name, data = f"llama-b{number}-bin-ubuntu-x64.tar.gz", io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", compresslevel=1) as archive:
        for program in ("llama-server", "llama-quantize"):
            archive.add(build / program, f"llama-b{number}/{program}")
    (tmp_path / name).write_bytes(data.getvalue())
    root = tmp_path / "root"
    with Releases() as served:
        served.add(number, names=(name,), content={name: data.getvalue()})
        served.add(number + 1, names=(f"llama-b{number + 1}-bin-macos-arm64.tar.gz",))

        def install(*words: object) -> Result:
            env = {"LLAMA_RUNNER_RELEASES": served.endpoint}
            return llama_runner("bins", "install", *words, "--json", "--root", root, env=env)

        made = install("--release", "latest")
        assert made.code == 0, made
        assert made.json["name"].startswith(f"prebuilt-cpu-b{number}-"), "the newest that has one for this machine"
        assert made.json["ran"] == ["fetch_url", "unpack_programs"]
        assert install("--release", f"b{number}").json["ran"] == []
        absent = install("--release", f"b{number + 1}")
        assert absent.code == 5
        assert "macos-arm64" in absent.err
    (listed,) = llama_runner("bins", "list", "--json", "--root", root).json
    assert (listed["name"], listed["origin"], listed["problem"]) == (made.json["name"], "prebuilt", None)
    digest = hashlib.sha256(data.getvalue()).hexdigest()
    assert install(tmp_path / name, "--sha256", digest).json["ran"] == []
    assert install(tmp_path / name, "--sha256", "0" * 64).code == 3
    assert install().code == install(tmp_path / name, "--release", "latest").code == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("use", "absent"), 2, "there are no programs called 'absent' in bins/"),
        (("path",), 2, "the programs that a run would take are not here yet"),
        (("rollback",), 2, "nothing was in use before auto"),
        (("remove",), 2, "name what to remove, or say --unused"),
        (("remove", "--unused", "name"), 2, "name what to remove, or say --unused"),
        (("export", "absent"), 2, "there are no programs called 'absent'"),
        (("import", "absent"), 3, "cannot read"),
    ],
)
def test_what_cannot_be_done_is_told(
    llama_runner: Command, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = llama_runner("bins", *words, "--root", tmp_path)
    assert done.code == code, done
    assert said in done.err
    assert "Traceback" not in done.err


def test_an_empty_root_has_none_and_stays_empty(llama_runner: Command, tmp_path: Path) -> None:
    done = llama_runner("bins", "list", "--root", tmp_path / "none")
    assert (done.code, done.out) == (0, "")
    assert "llama-runner bins build" in done.err
    assert llama_runner("bins", "list", "--json", "--root", tmp_path / "none").json == []
    assert not (tmp_path / "none").exists()


def test_the_commands_that_are_told_work_one_after_the_other(
    llama_runner: Command, machine_there: Path, build: Path
) -> None:
    text = (REPOSITORY / "docs" / "binaries.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line, comments=True) for line in "".join(blocks).splitlines()]
    assert {"bins export", "bins import"} <= {" ".join(words[1:3]) for words in lines}
    for name, *words in lines:
        assert name == "llama-runner"
        if words[1] not in ("export", "import"):  # which have a test of their own, and take seconds
            done = llama_runner(*words, env={"LLAMA_RUNNER_ROOT": str(machine_there)})
            assert done.code == 0, done
    assert (machine_there / "bins" / HERE / build.name).exists()


def test_every_option_and_field_that_is_told_exists(llama_runner: Command, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "binaries.md").read_text()
    helps = [llama_runner(*words, "--help").out for words in (("run",), *(("bins", name) for name in bins.commands))]
    told = set(re.findall(r"`(?:bins \w+ )?(--[a-z][a-z-]+)", text)) - {"--version", "--list-devices"}
    assert told
    assert not {option for option in told if not any(option in shown for shown in helps)}
    assert set(re.findall(r"bins (\w+)", text)) <= set(bins.commands)
    lay(tmp_path)
    (listed,) = llama_runner("bins", "list", "--json", "--root", tmp_path).json
    paragraph = re.search(r"has for each: (.*?)\.\n", text, re.DOTALL)
    assert paragraph is not None
    origins = {"built", "prebuilt", "system", "imported"}
    assert set(re.findall(r"`(\w+)`", paragraph[1])) - origins == set(listed)
