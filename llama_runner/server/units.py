"""The text that lets the system start a server and keep it: a systemd user unit, or a launchd agent on macOS.

Whoever writes it holds the command to be run; the system starts it again when it fails. Never a key in it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.paths import safe_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESTARTS = 5
"""Starts in ten minutes after which systemd gives up."""


def where(name: str, environment: Mapping[str, str]) -> Path:
    """Return where the unit of a server of this name belongs."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "LaunchAgents" / f"{_label(name)}.plist"
    config = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "systemd" / "user" / f"llama-runner-{safe_name(name)}.service"


def unit(name: str, argv: Sequence[str], directory: Path) -> str:
    """Return the text of the unit for this system; ``directory`` is where relative paths in ``argv`` begin."""
    return launchd(name, argv, directory) if sys.platform == "darwin" else systemd(name, argv, directory)


def systemd(name: str, argv: Sequence[str], directory: Path) -> str:
    """Return a systemd user unit. It is started when the server says that it is ready, however long a download is."""
    return f"""[Unit]
Description=llama-server for {_percent(name)}
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst={RESTARTS}

[Service]
Type=notify
NotifyAccess=main
ExecStart={" ".join(map(_word, argv))}
WorkingDirectory={_percent(str(directory))}
Restart=on-failure
RestartSec=5
TimeoutStartSec=infinity
TimeoutStopSec=30
KillMode=mixed
NoNewPrivileges=true
UMask=0077

[Install]
WantedBy=default.target
"""


def launchd(name: str, argv: Sequence[str], directory: Path) -> str:
    """Return a launchd agent."""
    import plistlib  # noqa: PLC0415 - for macOS

    agent = {
        "Label": _label(name),
        "ProgramArguments": list(argv),
        "WorkingDirectory": str(directory),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": 30,
        "ProcessType": "Interactive",
        "Umask": 0o077,
    }
    return plistlib.dumps(agent).decode()


def commands(path: Path) -> tuple[str, str]:
    """Return what the user types to start such a service, and to end it."""
    if sys.platform == "darwin":
        domain = f"gui/{os.getuid()}"
        return f"launchctl bootstrap {domain} {path}", f"launchctl bootout {domain} {path}"
    reload = "systemctl --user daemon-reload && systemctl --user"
    return f"{reload} enable --now {path.name}", f"systemctl --user disable --now {path.name}"


def _label(name: str) -> str:
    return f"llama-runner.{safe_name(name)}"


def _percent(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")


def _word(word: str) -> str:
    """Return a word as systemd reads it: its specifiers and variables are not ours."""
    word = _percent(word).replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def notify_ready(environment: Mapping[str, str]) -> None:
    """Tell systemd that the server is ready, if it started us and wants to know."""
    import socket  # noqa: PLC0415 - only then
    from contextlib import suppress  # noqa: PLC0415

    path = environment.get("NOTIFY_SOCKET", "")
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.sendto(b"READY=1", "\0" + path[1:] if path.startswith("@") else path)
