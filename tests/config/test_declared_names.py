"""Commands take the names that a configuration file declares."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.config.config import Config
from llama_runner.config.errors import ConfigError
from llama_runner.demo import MODEL_DIRECTORY
from tests.config.files import Write, write_in
from tests.conftest import Command, Result, says
from tests.e2e.lora import write_adapter

FILE = f"""
[defaults]
ctx_size = 512
threads = 1
llama = {{ parallel = 2 }}

[models."tiny:demo"]
source = "{MODEL_DIRECTORY.as_posix()}"
aliases = ["little"]
port = 0
sampling = {{ temperature = 0 }}
llama = {{ cache-ram = 0 }}

[models."tiny:demo".variants.warm]
aliases = ["warm-one"]
sampling = {{ temperature = 0.5 }}
"""


@pytest.fixture
def declare(tmp_path: Path, llama_runner: Command) -> Write:
    """Return a function that writes the configuration file of the commands' working directory."""
    return write_in(tmp_path / "cwd")


@pytest.fixture
def ask(root: Path, llama_runner: Command, declare: Write) -> Command:
    """Return a function that runs a command where ``FILE`` is declared."""
    declare(FILE)

    def run(*words: object, after: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Result:
        return llama_runner(*words, "--root", root, *(("--", *after) if after else ()), env=env)

    return run


def argv_of(plan: Result) -> list[str]:
    assert plan.code == 0, plan
    found: list[str] = plan.json["launch"]["argv"]
    return found


def value_of(argv: list[str], option: str) -> str:
    """Return the value that llama-server takes: the last one."""
    return [after for word, after in itertools.pairwise(argv) if word == option][-1]


@pytest.mark.parametrize(
    ("name", "alias", "temperature"),
    [
        ("tiny:demo", "tiny:demo,little", "0"),
        ("little", "tiny:demo,little", "0"),
        ("warm-one", "tiny:demo:warm,warm-one", "0.5"),
        ("tiny:demo:warm", "tiny:demo:warm,warm-one", "0.5"),
    ],
)
def test_plan_takes_a_name_an_alias_and_a_variant(ask: Command, name: str, alias: str, temperature: str) -> None:
    argv = argv_of(ask("plan", name, "--json"))
    options = ("--alias", "-c", "-t", "--temp", "--parallel", "--cache-ram")
    found = {option: value_of(argv, option) for option in options if option in argv}
    shown = json.dumps(argv)
    assert found["--alias"] == alias, shown
    assert (found["--temp"], found["--parallel"], found["--cache-ram"]) == (temperature, "2", "0"), shown


def test_what_the_command_line_says_counts_more_than_the_file(ask: Command) -> None:
    words = ("--ctx-size", "1024", "--parallel", "3")
    argv = argv_of(ask("plan", "little", *words, "--json", after=("--temp", "0.9")))
    assert (value_of(argv, "--parallel"), value_of(argv, "--temp")) == ("3", "0.9")
    assert "1024" in argv
    assert "512" not in argv


def test_a_server_of_a_declared_name_is_run_asked_logged_restarted_and_stopped_by_it(ask: Command) -> None:
    started = ask("run", "little", "--detach")
    try:
        assert started.code == 0, started
        [shown] = ask("ps", "--json").json
        assert shown["alias"] == "tiny:demo"
        models = urllib.request.urlopen(f"{shown['url']}/v1/models", timeout=60).read().decode()
        assert '"tiny:demo"' in models
        assert '"little"' in models
        answer = ask("infer", "tiny:demo", "what is a step?", "--json")
        assert answer.code == 0, answer
        assert len(ask("ps", "--json").json) == 1, "the server that runs was asked"
        assert "what is a step" not in answer.err
        for name in ("tiny:demo", "little"):
            assert "model loaded" in ask("logs", name).out, name
        assert ask("restart", "little").code == 0
        stopped = ask("stop", "little")
        assert stopped.out.startswith("stopped   tiny:demo at "), stopped
    finally:
        ask("stop", "--all")


def test_prepare_convert_and_bench_take_a_declared_name(ask: Command, tmp_path: Path) -> None:
    prepared = ask("prepare", "little", "--json")
    assert prepared.code == 0, prepared
    model = prepared.json["model"]
    assert ask("prepare", "tiny:demo:warm", "--json").json["model"] == model
    (tmp_path / "out").mkdir()
    converted = ask("convert", "little", "--outtype", "f16", "-o", f"{tmp_path}/out/")
    assert converted.code == 0, converted
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".gguf"]
    measured = ask("bench", "little", "--concurrency", "1", "--requests", "1", "--max-tokens", "4", "--json")
    assert measured.code == 0, measured
    raw = ask("bench", "little", "--raw", "--json", after=("-p", "8", "-n", "4", "-r", "1"))
    assert raw.code == 0, raw


def test_lock_takes_declared_names_with_their_options(ask: Command, declare: Write, root: Path, tmp_path: Path) -> None:
    declare(f'[models.a]\nsource = "{MODEL_DIRECTORY.as_posix()}"\nquantization = "q8_0"\naliases = ["b"]\n')
    locked = ask("lock", "b", "--lock-file", tmp_path / "lock", "--json")
    assert locked.code == 0, locked
    [entry] = json.loads((tmp_path / "lock").read_text())["models"].values()
    assert entry["options"] == {"quantization": "q8_0"}
    assert ask("prepare", "a", "--locked", "--lock-file", tmp_path / "lock").code == 0
    by_flag = ask("lock", "a", "-q", "q4_k_m", "--update", "--lock-file", tmp_path / "lock")
    assert by_flag.code == 0, by_flag
    [entry] = json.loads((tmp_path / "lock").read_text())["models"].values()
    assert entry["options"] == {"quantization": "q4_k_m"}


def test_an_adapter_is_asked_by_its_name(ask: Command, declare: Write, tmp_path: Path, binaries: Path) -> None:
    model = Runner(binaries).prepare(demo=True).model
    adapter = write_adapter(tmp_path / "cwd" / "a,b.gguf", model, 1)
    declare(
        f'[models.m]\nsource = "{MODEL_DIRECTORY.as_posix()}"\nport = 0\nctx_size = 512\n'
        f'[models.m.adapters.l]\npath = "{adapter.name}"\nscale = 0.5\n'
    )
    started = ask("run", "m:l", "--detach", "--canary")
    try:
        assert started.code == 0, started
        [shown] = ask("ps", "--json").json
        assert shown["alias"] == "m:l"
        loaded = json.loads(urllib.request.urlopen(f"{shown['url']}/lora-adapters", timeout=60).read())
        assert [each["scale"] for each in loaded] == [0.5]
    finally:
        ask("stop", "--all")


def test_a_service_starts_a_declared_name_with_its_file(
    ask: Command, llama_runner: Command, root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cwd" / "llama-runner.toml"
    for words in (("little",), ("little", "--root", root)):
        shown = llama_runner("service", "show", *words, env={"LLAMA_RUNNER_ROOT": str(root)})
        assert shown.code == 0, shown
        [line] = [line for line in shown.out.splitlines() if line.startswith("ExecStart=")]
        assert " run little " in line
        assert f"--config={path}" in line


def test_a_name_that_is_a_file_here_too_is_told(ask: Command, tmp_path: Path) -> None:
    (tmp_path / "cwd" / "little").mkdir()
    answer = ask("plan", "little")
    assert answer.code == 0
    path = tmp_path / "cwd" / "llama-runner.toml"
    assert f"warning: little is declared in {path}; ./little is not used" in answer.err


def test_a_name_that_is_not_declared_stays_what_it_is(ask: Command, tmp_path: Path) -> None:
    assert ask("plan", MODEL_DIRECTORY).code == 0
    assert ask("plan", "--demo").code == 0
    says(ask("plan", "./nothing-here"), 3, "nothing-here")


def test_a_misspelt_name_is_answered_with_the_nearest_declared_one(ask: Command) -> None:
    says(ask("plan", "litle"), 3, "did you mean little?")


@pytest.mark.parametrize("command", ["run", "plan", "prepare", "infer", "convert", "lock"])
def test_a_broken_file_is_a_wrong_use_with_its_line(ask: Command, declare: Write, command: str) -> None:
    path = declare('[models.a]\nsource = "x"\nprt = 5\nport = "5"\n')
    says(ask(command, "a"), 2, f"{path}:3: models.a.prt: there is no such key", "did you mean port?", "1 more mistake")


def test_a_broken_file_is_an_object_for_programs(ask: Command, declare: Write) -> None:
    declare("a =")
    answer = ask("plan", "a", "--json")
    assert (answer.code, json.loads(answer.err)["code"]) == (2, 2)


def test_config_names_another_file_and_empty_means_none(ask: Command, tmp_path: Path) -> None:
    other = write_in(tmp_path)(f'[models.other]\nsource = "{MODEL_DIRECTORY.as_posix()}"\n', "other.toml")
    assert ask("plan", "other", "--config", other).code == 0
    assert ask("plan", "other", env={"LLAMA_RUNNER_CONFIG": str(other)}).code == 0
    says(ask("plan", "other", "--config", tmp_path / "gone.toml"), 2, "gone.toml does not exist")
    says(ask("plan", "little", "--config", ""), 3, "little")


def test_in_python_a_runner_takes_a_configuration(binaries: Path, declare: Write) -> None:
    path = declare(FILE)
    config = Config.load(path)
    for given in (path, str(path), config):
        prepared = Runner(binaries, config=given).prepare("little")
        assert prepared.model.is_file()
    with pytest.raises(ConfigError, match=r"prt: there is no such key"):
        Runner(binaries, config=declare("[defaults]\nprt = 1")).prepare("little")


LOADED = """
import json, sys
sys.argv = ["llama-runner", *sys.argv[1:]]
from llama_runner.cli.main import main
status = main()
print(json.dumps([name for name in sys.modules if name.startswith("llama_runner.config") or name.startswith("tom")]))
sys.exit(status)
"""


def modules_of(directory: Path, *words: object) -> set[str]:
    """Return the modules about configuration that a command loads."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *map(str, words)], check=True, capture_output=True, text=True, cwd=directory
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_start_without_a_name_loads_nothing_of_the_configuration(
    ask: Command, tmp_path: Path, binaries: Path
) -> None:
    cwd = tmp_path / "cwd"
    model = Runner(binaries).prepare(demo=True).model
    for words in (("--demo",), ("--gguf-path", model)):
        assert modules_of(cwd, "plan", *words, "--root", binaries) == set()


def test_a_start_with_a_declared_name_loads_what_reads_the_file_and_nothing_that_changes_it(
    ask: Command, tmp_path: Path, binaries: Path
) -> None:
    found = modules_of(tmp_path / "cwd", "plan", "little", "--root", binaries)
    assert {name for name in found if name.startswith("tom")} <= {"tomllib", "tomli"} | {
        name for name in found if name.startswith(("tomllib.", "tomli."))
    }
    assert {name.rpartition(".")[2] for name in found if name.startswith("llama_runner")} <= {
        *(
            "config",
            "errors",
            "find",
            "known_keys",
            "layers",
            "parsed_tables",
            "presets",
            "read_config_file",
            "toml",
            "files_for_gc",
            "secret_check",
            "value_types",
        )
    }
