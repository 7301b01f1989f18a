"""Text of a service of the system that starts a server or the gateway: a systemd unit, or a launchd agent on macOS.

The unit has the command; the system restarts it after a failure. It never has an API key.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llama_runner.store.layout import BINS_VARIABLE, ROOT_VARIABLE, safe_name
from llama_runner.system.platforms import IS_MACOS, new_unix_socket, user_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind = Literal["server", "gateway"]
"""What the command of a service is: one llama-server, or the gateway, which follows its configuration on SIGHUP."""

RESTARTS = 5
"""Starts in ten minutes after which systemd gives up."""

_STOP_S: dict[Kind, int] = {"server": 30, "gateway": 60}
"""Seconds after which the system kills what does not end. The gateway gives requests in progress 30 of them."""

_STATE_DIRECTORY = f"""StateDirectory=llama-runner
Environment={ROOT_VARIABLE}=%S/llama-runner
WorkingDirectory=%S/llama-runner"""
"""Lines of a unit that stands on any machine."""

_CARRIED = {
    *("PATH", BINS_VARIABLE, "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "XDG_CACHE_HOME"),
    *("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "LLAMA_RUNNER_RELEASES"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"),
}
"""Environment variables that decide where things are found or which devices are used."""

_CARRIED_PREFIXES = (
    "LD_LIBRARY_",
    "GGML_",
    "CUDA_",
    "HIP_",
    "ROCR_",
    "HSA_",
    "ROCM_",
    "VK_",
    "SYCL_",
    "ONEAPI_",
    "OMP_",
)
"""Beginnings of others: of libraries that compute."""

_COMPILERS = {"CC", "CXX", "CUDACXX", "CMAKE_PREFIX_PATH", "PKG_CONFIG_PATH"}


def where(name: str, environment: Mapping[str, str]) -> Path:
    """Return where the unit of a server of this name belongs."""
    if IS_MACOS:
        return Path.home() / "Library" / "LaunchAgents" / f"{_label(name)}.plist"
    config = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "systemd" / "user" / f"llama-runner-{safe_name(name)}.service"


def unit(
    name: str,
    argv: Sequence[str],
    directory: Path,
    variables: Mapping[str, str] | None = None,
    *,
    kind: Kind = "server",
) -> str:
    """Return the text of the unit for this system; ``directory`` is where relative paths in ``argv`` begin."""
    write = launchd if IS_MACOS else systemd
    return write(name, argv, directory, variables, kind=kind)


def variables(environment: Mapping[str, str], root: Path, *, llama_env: bool) -> dict[str, str]:
    """Return the environment variables of a service: those that say where things are, and what is used.

    The system starts a service without the variables of the shell. With ``llama_env`` those that configure
    llama-server are among them. Tokens, keys and addresses with a password are not.
    """
    prefixes = (*_CARRIED_PREFIXES, "LLAMA_ARG_") if llama_env else _CARRIED_PREFIXES
    names = [name for name in environment if name in _CARRIED | _COMPILERS or name.startswith(prefixes)]
    safe = {name: environment[name] for name in sorted(names) if not re.search(r"://[^/]*@", environment[name])}
    return {ROOT_VARIABLE: str(root)} | safe


def systemd(
    name: str,
    argv: Sequence[str],
    directory: Path | None,
    variables: Mapping[str, str] | None = None,
    *,
    user: str | None = None,
    kind: Kind = "server",
) -> str:
    """Return a systemd user unit or, with ``user``, a unit of the system that runs as that user.

    It is started when the server says that it is ready, however long a download is. ``directory`` is the working
    directory; None: the unit has a state directory, which is the root of llama-runner too.
    """
    settings = "".join(f"Environment={quoted(f'{name}={text}')}\n" for name, text in (variables or {}).items())
    settings += f"User={_percent(user)}\n" if user else ""
    where = _STATE_DIRECTORY if directory is None else f"WorkingDirectory={_percent(str(directory))}"
    wanted_by = "multi-user.target" if user else "default.target"
    title = "llama-runner gateway" if kind == "gateway" else f"llama-server for {description(name)}"
    reload = "ExecReload=/bin/kill -HUP $MAINPID\n" if kind == "gateway" else ""
    return f"""[Unit]
Description={title}
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst={RESTARTS}

[Service]
Type=notify
NotifyAccess=main
{settings}ExecStart={" ".join(map(word, argv))}
{reload}{where}
Restart=on-failure
RestartSec=5
TimeoutStartSec=infinity
TimeoutStopSec={_STOP_S[kind]}
KillMode=mixed
NoNewPrivileges=true
UMask=0077

[Install]
WantedBy={wanted_by}
"""


def launchd(
    name: str,
    argv: Sequence[str],
    directory: Path,
    variables: Mapping[str, str] | None = None,
    *,
    kind: Kind = "server",
) -> str:
    """Return a launchd agent."""
    import plistlib  # noqa: PLC0415 - for macOS

    agent = {
        "Label": _label(name),
        "ProgramArguments": list(argv),
        "EnvironmentVariables": dict(variables or {}),
        "WorkingDirectory": str(directory),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": _STOP_S[kind],
        "ProcessType": "Interactive",
        "Umask": 0o077,
    }
    return plistlib.dumps(agent).decode()


def commands(path: Path) -> tuple[str, str]:
    """Return what the user types to start such a service, and to end it."""
    if IS_MACOS:
        domain = f"gui/{user_id()}"
        return f"launchctl bootstrap {domain} {path}", f"launchctl bootout {domain} {path}"
    reload = "systemctl --user daemon-reload && systemctl --user"
    return f"{reload} enable --now {path.name}", f"systemctl --user disable --now {path.name}"


def commands_of_system(path: Path) -> tuple[str, str]:
    """Return what the user types to start a unit of the system once it is written, and to end it."""
    start = f"sudo systemctl daemon-reload && sudo systemctl enable --now {path.name}"
    return start, f"sudo systemctl disable --now {path.name}"


def advice(environment: Mapping[str, str], *, lingers: bool, user: str) -> list[str]:
    """Return what keeps a user unit of systemd from running, each with its command; nothing on macOS.

    ``lingers`` says whether the user's services run without a login.
    """
    if IS_MACOS:
        return []
    told = []
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{user_id()}"
    if not (Path(runtime) / "bus").exists():
        told.append(
            "the services of this user are not running here (no user bus): log in as the user itself rather than by "
            f"su or sudo, or `sudo loginctl enable-linger {user} && export XDG_RUNTIME_DIR=/run/user/{user_id()}`"
        )
    elif not lingers:
        told.append(f"it runs while you are logged in: `loginctl enable-linger {user}` keeps it running")
    told.append("for a machine that nobody logs in to: `llama-runner service show --system …` prints a system unit")
    return told


def _label(name: str) -> str:
    return f"llama-runner.{safe_name(name)}"


def description(name: str) -> str:
    """Return a name as text on one line; a backslash at its end would join the next one."""
    return _percent(name).rstrip("\\")


def _percent(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")


def word(text: str) -> str:
    """Return a word of a command as systemd reads it: ``%`` and ``$`` stand for themselves."""
    return quoted(text.replace("$", "$$"))


def quoted(text: str) -> str:
    """Return a value as systemd reads it, in quotes where it needs them; ``%`` stands for itself."""
    text = text.replace("%", "%%")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in text) + '"'


def notify_ready(environment: Mapping[str, str]) -> None:
    """Notify systemd that the server is ready, if ``NOTIFY_SOCKET`` is set."""
    from contextlib import suppress  # noqa: PLC0415

    path = environment.get("NOTIFY_SOCKET", "")
    with suppress(OSError), new_unix_socket(datagrams=True) as there:
        there.sendto(b"READY=1", "\0" + path[1:] if path.startswith("@") else path)
