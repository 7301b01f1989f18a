"""``service install --up`` and ``--gateway``: the system starts what the configuration declares."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from llama_runner import Runner
from llama_runner.serving import systemd_and_launchd_units
from tests.conftest import Command, Result, says

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux")

TWO = '[gateway]\nlisten = ["{listen}"]\n[models.a]\ndemo = true\n[models.b]\ndemo = true\nquantization = "q8_0"\n'
ONE = "[models.chat]\ndemo = true\nport = 0\n"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a configuration."""

    def run(text: str = TWO, *, listen: str = "127.0.0.1:0") -> Path:
        path = tmp_path / "models" / "llama-runner.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("{listen}", listen))
        return path

    return run


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return the directory of the user's units."""
    return tmp_path / "config" / "systemd" / "user"


@pytest.fixture
def service(llama_runner: Command, tmp_path: Path) -> Command:
    """Return a function that runs a subcommand of ``service`` in a configuration directory of the test's own."""

    def run(verb: str, *words: object, root: Path = tmp_path / "root") -> Result:
        env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "LLAMA_RUNNER_ROOT": str(root)}
        return llama_runner("service", verb, *words, env=env)

    return run


def argv_of(text: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart="))


def test_15_05_a_service_of_declared_models_is_written_shown_and_removed(
    service: Command, write: Write, units: Path
) -> None:
    config = write()
    installed = service("install", "--up", "--config", config)
    assert installed.code == 0, installed
    path = units / "llama-runner-gateway.service"
    assert installed.out.splitlines()[0] == f"written   {path}"
    text = path.read_text()
    assert argv_of(text)[-3:] == ["up", "--config", str(config)]
    assert "\nDescription=llama-runner gateway\n" in text
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in text
    assert "\nTimeoutStopSec=60\n" in text, "the gateway gives requests 30 s to end"
    assert service("show", "gateway").out == text == service("show", "--up", "--config", config).out
    assert service("uninstall", "gateway").code == 0
    assert not path.exists()


def test_15_05_a_service_finds_the_configuration_that_the_command_found(
    service: Command, write: Write, tmp_path: Path
) -> None:
    config = write()
    (tmp_path / "root").mkdir()
    shutil.copy(config, tmp_path / "root" / "llama-runner.toml")
    shown = service("show", "--gateway", "b", "--listen", "127.0.0.1:8090")
    words = ["gateway", "b", "--listen", "127.0.0.1:8090", f"--config={tmp_path / 'root' / 'llama-runner.toml'}"]
    assert argv_of(shown.out)[-5:] == words


def test_15_05_one_model_is_a_service_of_its_own_server(service: Command, write: Write, units: Path) -> None:
    assert service("install", "--up", "--config", write(ONE)).code == 0
    text = (units / "llama-runner-chat.service").read_text()
    assert "\nDescription=llama-server for chat\n" in text
    assert "ExecReload" not in text, "SIGHUP would end llama-server"


@pytest.mark.parametrize("command", ["--up", "--gateway"])
@pytest.mark.parametrize(
    ("text", "words", "code", "said"),
    [
        (TWO.replace("quantization", "quantisation"), (), 2, "quantisation"),
        (TWO, ("c",), 2, "c"),
        (TWO, ("--detach",), 2, "leave --detach out"),
        (TWO, ("--no-such-option",), 2, "No such option"),
        (TWO, ("--listen", "0.0.0.0:0"), 2, "can be reached by other machines"),
        (TWO, ("--listen", "nonsense"), 2, "is no address"),
        (TWO, ("--system", "x"), 2, "--system"),
        ("[gateway]\n", (), 2, "declares no model"),
    ],
)
def test_15_05_what_could_not_start_is_not_installed(
    service: Command, write: Write, units: Path, command: str, text: str, words: tuple[str, ...], code: int, said: str
) -> None:
    says(service("install", command, "--config", write(text), *words), code, said)
    assert not units.exists()


def test_15_05_a_model_that_cannot_be_prepared_is_not_installed(service: Command, write: Write, units: Path) -> None:
    config = write(TWO.replace("demo = true\nquantization", 'source = "./gone"\nquantization'))
    says(service("install", "--up", "--config", config), 3, "gone")
    offline = write(TWO.replace("[models.a]", "[models.a]\noffline = true"))
    says(service("install", "--up", "--config", offline), 5, "is not here")
    says(service("install", "--up", "--config", offline, "--dry-run"), 2, "leave --dry-run out")
    assert not units.exists()
    assert service("install", "--gateway", "--config", config).code == 0, "it prepares a model when it is asked for"


def test_15_05_an_address_that_is_taken_is_said_before(service: Command, write: Write, units: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = ("install", "--gateway", "--config", write(listen=f"127.0.0.1:{listener.getsockname()[1]}"))
        says(service(*words), 8, "is taken")
        assert not units.exists()
        assert service(*words, "--force").code == 0


def test_15_05_a_variable_that_the_service_would_lack_is_said_before(
    llama_runner: Command, write: Write, tmp_path: Path
) -> None:
    text = 'environment = ["MY_DIR", "HOME"]\n[models.a]\nsource = "${MY_DIR}/a"\n[models.b]\nsource = "${HOME}/b"\n'
    words = ("service", "install", "--gateway", "--config", write(text), "--listen", "127.0.0.1:0")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "MY_DIR": str(tmp_path)}
    says(llama_runner(*words, env=env), 2, "the service would not have", "MY_DIR", "--force")
    assert llama_runner(*words, "--force", env=env).code == 0


def test_15_05_no_configuration_is_an_error(service: Command) -> None:
    says(service("install", "--gateway"), 2, "there is no configuration file")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("options", [(), ("--system",)])
def test_15_05_systemd_accepts_the_unit(
    service: Command,
    write: Write,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    options: tuple[str, ...],
) -> None:
    runtime = tmp_path_factory.mktemp("r")  # the paths of sockets are short
    shown = service("show", *options, "--gateway", "--config", write())
    unit = tmp_path / "llama-runner-gateway.service"
    unit.write_text(shown.out)
    manager = () if options else ("--user",)
    done = subprocess.run(
        ["systemd-analyze", "verify", *manager, unit],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_15_05_a_launchd_agent_of_a_gateway_has_time_to_end(tmp_path: Path) -> None:
    agent = plistlib.loads(systemd_and_launchd_units.launchd("gateway", ["up"], tmp_path, kind="gateway").encode())
    assert (agent["ProgramArguments"], agent["ExitTimeOut"]) == (["up"], 60)


def test_15_05_the_unit_says_when_it_is_ready_follows_the_file_and_ends(
    service: Command, write: Write, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = write(TWO.replace('quantization = "q8_0"\n', ""))
    text = service("show", "--gateway", "--config", config, root=root).out
    lines = [line.removeprefix("Environment=") for line in text.splitlines() if line.startswith("Environment=")]
    variables = dict(shlex.split(line)[0].split("=", 1) for line in lines)
    where = tmp_path_factory.mktemp("n") / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(where))
        listener.settimeout(60)
        with subprocess.Popen(
            argv_of(text), env={**variables, "NOTIFY_SOCKET": str(where)}, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert listener.recv(100) == b"READY=1"
                assert process.stdout is not None
                url = process.stdout.readline().split()[1]
                served = httpx2.get(f"{url}/v1/models", timeout=30).json()["data"]
                assert {each["id"] for each in served} == {"a", "b"}
                write(TWO.replace("[models.b]", "[models.c]"))
                process.send_signal(signal.SIGHUP)
                [entry] = Runner(root, config=config).reload()
                assert entry["models"] == ["a", "c"]
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
            finally:
                process.kill()


def test_15_05_python_makes_the_service_of_declared_models(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    services = Runner(tmp_path / "root").services
    made = services.of_command([f"--config={write()}"], name="all", command="gateway")
    assert argv_of(made.text)[-2] == "gateway"
    assert "ExecReload=" in made.text
    assert services.install(made) == made == services.find("all")
