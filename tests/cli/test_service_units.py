"""Services of the system, and what the commands about running servers say when none runs."""

from __future__ import annotations

import getpass
import json
import os
import plistlib
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner import Runner, ServerOptions, UsageError
from llama_runner.serving import systemd_and_launchd_units
from llama_runner.serving.server_registry import register, register_failed
from tests.conftest import Command, Result

OF_THE_MACHINE = r"SSL_CERT|PATH=|CUDA_|OMP_|GGML_"
linux = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux")


@linux
def test_a_service_is_written_shown_and_removed(llama_runner: Command, tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    words = ("--name", "mine", "--demo", "--port", "8123", "--root", tmp_path / "root", "--", "--metrics")
    installed = llama_runner("service", "install", *words, env=env)
    path = tmp_path / "config" / "systemd" / "user" / "llama-runner-mine.service"
    assert installed.code == 0, installed
    assert installed.out.splitlines()[0] == f"written   {path}"
    assert "systemctl --user enable --now llama-runner-mine.service" in installed.out
    text = path.read_text()
    assert re.search(
        r"^ExecStart=/\S+/llama-runner run --demo --port 8123 --root \S+ -- --metrics$", text, re.MULTILINE
    )
    assert f"WorkingDirectory={tmp_path / 'cwd'}\n" in text
    assert llama_runner("service", "show", "--name", "mine", env=env).out == text
    assert llama_runner("service", "show", *words, env=env).out == text
    assert llama_runner("service", "uninstall", "mine", env=env).code == 0
    assert not path.exists()
    again = llama_runner("service", "uninstall", "mine", env=env)
    assert again.code == 2
    assert "no service called 'mine' is installed" in again.err


@linux
def test_11_18_a_service_finds_what_run_finds_here(llama_runner: Command, tmp_path: Path) -> None:
    places = {"LLAMA_RUNNER_ROOT": str(tmp_path / "my root"), "HF_HOME": "/a/cache", "HF_HUB_OFFLINE": "1"}
    secrets = {
        "HF_TOKEN": "hf_secret",
        "HF_ENDPOINT": "https://me:secret@mirror",
        "HTTPS_PROXY": "http://me:secret@proxy",
    }
    text = llama_runner("service", "show", "--demo", env=places | secrets | {"LLAMA_ARG_TEMP": "0"}).out
    settings = [
        line for line in text.splitlines() if line.startswith("Environment=") and not re.search(OF_THE_MACHINE, line)
    ]
    assert settings == [
        f'Environment="LLAMA_RUNNER_ROOT={tmp_path / "my root"}"',
        "Environment=HF_HOME=/a/cache",
        "Environment=HF_HUB_OFFLINE=1",
    ]
    assert "secret" not in text
    by_option = llama_runner("service", "show", "--demo", "--root", "x", "--llama-env", env={"LLAMA_ARG_TEMP": "0"}).out
    assert f"\nEnvironment=LLAMA_RUNNER_ROOT={tmp_path / 'cwd' / 'x'}\n" in by_option
    assert "\nEnvironment=LLAMA_ARG_TEMP=0\n" in by_option
    refused = llama_runner("service", "show", "--demo", env={"LLAMA_API_KEY": "secret"})
    assert refused.code == 2
    assert "a unit holds no key, so LLAMA_API_KEY would not reach it; use --api-key-file" in refused.err


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("directory", ["plain", 'odd 100% "$HOME" \\ name'])
def test_systemd_has_nothing_to_say_against_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, directory: str
) -> None:
    runtime = tmp_path_factory.mktemp("r")  # the paths of sockets are short
    (tmp_path / directory).mkdir()
    words = [sys.executable, "-m", "llama_runner", "run", "--root", str(tmp_path / directory), 'a"b', "$HOME", "%h"]
    unit = tmp_path / "llama-runner-x.service"
    unit.write_text(
        systemd_and_launchd_units.systemd('x "%h"', words, tmp_path / directory, {"ROOT": str(tmp_path / directory)})
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", unit],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_launchd_agent_has_the_words_as_they_are(tmp_path: Path) -> None:
    agent = plistlib.loads(
        systemd_and_launchd_units.launchd("a b", ["run", 'a"b', "ü"], tmp_path, {"ROOT": "/ü"}).encode()
    )
    assert agent["EnvironmentVariables"] == {"ROOT": "/ü"}
    assert agent["ProgramArguments"] == ["run", 'a"b', "ü"]
    assert agent["Label"] == systemd_and_launchd_units._label("a b")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say which model, as for run"),
        (("--demo", "--no-such-option"), "No such option"),
        (("--demo", "--port", "70000"), "70000 is not in the range"),
        (("--demo", "--api-key", "auto"), "use --api-key-file"),
        (("--demo", "--api-key", "secret"), "seen by all"),
        (("--demo", "--detach"), "leave --detach out"),
    ],
)
def test_what_run_would_not_take_is_not_written(
    llama_runner: Command, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    result = llama_runner("service", "install", *words, env={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert result.code == 2
    assert said in result.err
    assert not (tmp_path / "config").exists()


def test_systemd_is_told_when_it_is_ready(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("n") / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(10)
        systemd_and_launchd_units.notify_ready({"NOTIFY_SOCKET": str(path)})
        assert listener.recv(100) == b"READY=1"
    systemd_and_launchd_units.notify_ready({"NOTIFY_SOCKET": str(path)})


def test_nothing_runs(llama_runner: Command, tmp_path: Path) -> None:
    root = ("--root", tmp_path)
    assert llama_runner("ps", *root).err == "none runs\n"
    assert llama_runner("ps", *root, "--json").json == []
    assert "error: no server has run here\n" in llama_runner("logs", *root).err
    for command in ("logs", "restart", "stop"):
        result = llama_runner(command, "x", *root)
        assert result.code == 2
        assert "error: no server called 'x' runs\nhint: none runs here\n" in result.err


def test_a_key_among_the_arguments_is_refused(llama_runner: Command, tmp_path: Path) -> None:
    result = llama_runner("run", "--demo", "--api-key", "secret", "--root", tmp_path)
    assert result.code == 2
    assert "use LLAMA_API_KEY or --api-key-file" in result.err


def test_a_server_for_all_without_a_key_is_refused_before_any_work(llama_runner: Command, tmp_path: Path) -> None:
    result = llama_runner("run", "--demo", "--host", "0.0.0.0", "--root", tmp_path / "root")
    assert result.code == 2
    assert "whoever reaches 0.0.0.0 could use the server" in result.err
    assert "--insecure" in result.err
    assert not list((tmp_path / "root").rglob("*.gguf"))


def test_the_end_of_a_log_is_read_from_its_end_and_followed(tmp_path: Path) -> None:
    from llama_runner.serving.log_reader import ServerLog, last_lines

    path = tmp_path / "x.log"
    path.write_bytes(b"".join(b"line %06d\n" % number for number in range(30_000)) + b"unfinished")
    with path.open("rb") as file:
        assert last_lines(file, 3) == [b"line 029998\n", b"line 029999\n", b"unfinished"]
        assert last_lines(file, 0) == []
        assert len(last_lines(file, 50_000)) == 30_001
    looks = iter(range(9))

    def runs() -> bool:
        look = next(looks)
        if look < 2:
            with path.open("ab") as log:
                log.write([b" line\n", b"last of the old\n"][look])
        if look == 1:
            path.rename(tmp_path / "x.log.1")
        if look == 2:
            path.write_bytes(b"first of the new\n")
        return look < 3

    log = ServerLog(path, runs).read(lines=0, follow=True)
    assert b"".join(log) == b" line\nlast of the old\nfirst of the new\n"


def test_systemd_reads_the_words_as_they_are() -> None:
    text = systemd_and_launchd_units.systemd(
        "x", ["plain", "a b", "$HOME", "%h", 'q"t', "b\\s", ""], Path("/d"), {"A": '/a "$b" %c\\d'}
    )
    assert r'Environment="A=/a \"$b\" %%c\\d"' + "\n" in text
    assert r'ExecStart=plain "a b" $$HOME %%h "q\"t" "b\\s" ""' + "\n" in text


def test_one_that_failed_is_listed_with_the_reason_until_it_is_stopped(llama_runner: Command, tmp_path: Path) -> None:
    about = {"alias": "acme/tiny", "url": "http://127.0.0.1:8080", "log": "logs/run-server-1.log", "build": "b1"}
    register_failed(tmp_path / ".llama_runner" / "servers", about, "llama-server exited with 7\n  out of luck")
    root = ("--root", tmp_path)
    [row, *reason] = llama_runner("ps", *root).out.splitlines()[1:]
    assert row.split() == ["acme/tiny", "failed", "http://127.0.0.1:8080", *"-----", "-", "b1"]
    why = ["failed    acme/tiny: llama-server exited with 7", "  out of luck", "full log: logs/run-server-1.log"]
    assert reason == why
    again = llama_runner("restart", "acme/tiny", *root)
    assert (
        again.code,
        "acme/tiny does not run, and what it was started with is not kept\nfull log: logs/run-" in again.err,
    ) == (2, True), again
    assert "failed    acme/tiny: llama-server exited with 7, log logs/" in llama_runner("status", *root).out
    [told] = llama_runner("ps", *root, "--json").json
    assert (told["state"], told["vram"], told["slots_busy"], told["tokens_per_second"]) == ("failed", None, None, None)
    assert llama_runner("stop", "acme/tiny", *root).out == "forgotten acme/tiny: it had failed\n"
    assert llama_runner("ps", *root).err == "none runs\n"


def test_11_08_a_unit_holds_no_credential_of_a_url(llama_runner: Command, tmp_path: Path) -> None:
    url = f"https://user:planted@localhost/x@{'0' * 40}"
    done = llama_runner("service", "show", "--name", "x", "--demo", "--source", url, "--root", tmp_path)
    assert done.code == 2
    assert "planted" not in done.out + done.err
    assert "a password or a token" in done.err


@linux
def test_a_service_is_written_found_and_removed_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    services = Runner(tmp_path / "root").services
    assert services.installed() == []
    made = services.of_model("org/model", server=ServerOptions(port=8123), quantization="q8_0", restart="always")
    assert not (tmp_path / "config").exists(), "nothing is written before it is installed"
    assert made.name == "model"
    assert " run org/model --quantization=q8_0 --restart=always --port=8123\n" in made.text
    assert f"LLAMA_RUNNER_ROOT={tmp_path / 'root'}\n" in made.text
    assert services.install(made) == made
    assert services.find("model") == made
    assert services.installed() == [made]
    assert services.state("model") in ("inactive", "unknown", "offline")
    assert services.remove("model") == made
    assert services.installed() == []
    for wrong in ({}, {"server": ServerOptions(api_key="secret"), "demo": True}, {"hf_model": "https://a:b@host/x"}):
        with pytest.raises(UsageError):
            services.of_model(**wrong)
    with pytest.raises(TypeError, match="did you mean 'quantization'"):
        services.of_model("x", quantisation="q8_0")  # type: ignore[call-arg]


UNIT = "config/systemd/user/llama-runner-mine.service"


@pytest.fixture
def install(llama_runner: Command, tmp_path: Path) -> Command:
    """Return a function that installs a service called mine, into a configuration directory of the test's own."""

    def run(*words: object, env: dict[str, str] | None = None) -> Result:
        settings = {"XDG_CONFIG_HOME": str(tmp_path / "config"), **(env or {})}
        where = ("--root", tmp_path / "root", "--port", "0")
        return llama_runner("service", "install", "--name", "mine", *where, *words, env=settings)

    return run


@linux
def test_13_06_a_unit_has_what_run_had(install: Command, tmp_path: Path) -> None:
    (tmp_path / "cwd" / "keys").write_text("a-key\n")
    (tmp_path / "cwd" / "keys").chmod(0o600)
    there = {"CUDA_VISIBLE_DEVICES": "1", "LD_LIBRARY_PATH": "/opt/cuda/lib", "GGML_VK_DISABLE_F16": "1", "CC": "cc"}
    words = ("--demo", "--api-key-file", "keys", "--restart", "always", "-q", "q8_0", "-np", "2")
    done = install("--force", *words[:-2], "--", *words[-2:], env=there)
    assert done.code == 0, done
    text = (tmp_path / UNIT).read_text()
    assert " --demo --api-key-file keys --restart always -q q8_0 -- -np 2\n" in text
    assert f"WorkingDirectory={tmp_path / 'cwd'}\n" in text
    settings = [line.removeprefix("Environment=") for line in text.splitlines() if line.startswith("Environment=")]
    assert {f"LLAMA_RUNNER_ROOT={tmp_path / 'root'}", *(f"{name}={value}" for name, value in there.items())} <= {
        *settings
    }
    assert any(line.strip('"').startswith("PATH=") for line in settings)


@linux
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("./no-such-model",), 3, "no-such-model"),
        (("--demo", "-q", "q4_k_x"), 2, "q4_k_x"),
        (("--demo", "--host", "0.0.0.0"), 2, "whoever reaches 0.0.0.0 could use the server"),
        (("--demo", "--api-key-file", "none"), 2, "API key file"),
        (("--demo", "--offline"), 5, "is not here, and the network must not be used"),
        (("--demo", "--force-step", "nonsense"), 2, "there is no step called 'nonsense' here"),
    ],
)
def test_13_06_what_run_would_refuse_is_not_installed(
    install: Command, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = install(*words)
    assert (done.code, said in done.err) == (code, True), done
    assert not (tmp_path / "config").exists()


@linux
def test_13_06_a_port_that_is_taken_is_said_before(llama_runner: Command, tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = ("--demo", "--port", listener.getsockname()[1], "--root", tmp_path / "root")
        refused = llama_runner("service", "install", *words, env=env)
        assert refused.code == 8, refused
        assert "is taken" in refused.err
        assert not (tmp_path / "config").exists()
        assert llama_runner("service", "install", "--force", *words, env=env).code == 0


@linux
def test_13_06_a_unit_is_not_overwritten_without_force(install: Command, tmp_path: Path) -> None:
    assert install("--demo").code == 0
    before = (tmp_path / UNIT).read_text()
    assert install("--demo").code == 0, "the same unit is no other one"
    refused = install("--demo", "-q", "q8_0")
    assert refused.code == 2
    assert f"error: a service called 'mine' is installed already: {tmp_path / UNIT}\nhint: --force " in refused.err
    assert (tmp_path / UNIT).read_text() == before
    assert install("--force", "--demo", "-q", "q8_0").code == 0
    assert "-q q8_0" in (tmp_path / UNIT).read_text()


@linux
def test_13_06_what_keeps_it_from_running_is_said_with_its_command(install: Command, tmp_path: Path) -> None:
    without = install("--demo", env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert "note      the services of this user are not running here (no user bus): log in as the user" in without.out
    assert "export XDG_RUNTIME_DIR=/run/user/" in without.out
    assert "`llama-runner service show --system …` prints a system unit" in without.out
    (tmp_path / "bus").touch()
    user = getpass.getuser()
    if not Path(f"/var/lib/systemd/linger/{user}").exists():
        logged_in = install("--demo", env={"XDG_RUNTIME_DIR": str(tmp_path)})
        assert f"`loginctl enable-linger {user}` keeps it running" in logged_in.out


@linux
def test_13_06_a_unit_of_the_system_runs_as_the_user(llama_runner: Command, tmp_path: Path) -> None:
    done = llama_runner("service", "show", "--system", "--name", "mine", "--demo", "--root", tmp_path)
    assert done.code == 0, done
    assert f"\nUser={getpass.getuser()}\n" in done.out
    assert "\nWantedBy=multi-user.target\n" in done.out
    assert "install   … | sudo tee /etc/systemd/system/llama-runner-mine.service\n" in done.err
    assert "start     sudo systemctl daemon-reload && sudo systemctl enable --now llama-runner-mine.service" in done.err
    if shutil.which("systemd-analyze") is not None:
        (tmp_path / "llama-runner-mine.service").write_text(done.out)
        verified = subprocess.run(
            ["systemd-analyze", "verify", tmp_path / "llama-runner-mine.service"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert (verified.returncode, verified.stderr) == (0, "")


def test_11_13_entries_of_containers_that_are_gone_can_be_forgotten(llama_runner: Command, tmp_path: Path) -> None:
    directory = Runner(tmp_path).servers
    path = register(directory, os.getpid(), {"alias": "gone", "url": "http://127.0.0.1:1", "log": "logs/x.log"})
    assert path is not None
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"machine": f"{about['machine']}0", "host": "a-container"}))
    refused = llama_runner("stop", "gone", "--root", tmp_path)
    assert "`llama-runner stop --forget` removes its entry" in refused.err
    done = llama_runner("stop", "--forget", "gone", "--root", tmp_path)
    assert done.out == "forgotten gone at http://127.0.0.1:1, of host a-container\n"
    assert llama_runner("ps", "--root", tmp_path).err == "none runs\n"
    again = llama_runner("stop", "--forget", "gone", "--root", tmp_path)
    assert (again.code, "is registered by another container or machine" in again.err) == (2, True)


@linux
def test_13_06_show_takes_the_name_of_an_installed_service_and_documents_are_json(
    llama_runner: Command, tmp_path: Path
) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "LLAMA_RUNNER_ROOT": str(tmp_path / "root")}
    none = llama_runner("service", "show", "chat", env=env)
    assert none.code == 2
    assert "no service called 'chat' is installed" in none.err
    made = llama_runner("service", "install", "--name", "chat", "--demo", "--port", "0", "--json", env=env).json
    assert list(made) == ["name", "path", "text", "start", "stop", "advice"]
    assert "--json" not in Path(made["path"]).read_text()
    assert llama_runner("service", "show", "chat", env=env).out == made["text"] == Path(made["path"]).read_text()
    assert llama_runner("service", "show", "chat", "--json", env=env).json["path"] == made["path"]
    assert "run demo" in llama_runner("service", "show", "demo", env=env).out, "a model"
    assert llama_runner("service", "uninstall", "chat", "--json", env=env).json["name"] == "chat"
    refused = llama_runner("service", "uninstall", "chat", "--json", env=env)
    assert (refused.code, json.loads(refused.err)["code"]) == (2, 2)
