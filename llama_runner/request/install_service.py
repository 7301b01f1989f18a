"""Installs services of the system that start servers or the gateway: systemd user units, launchd agents on macOS."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable
from llama_runner.core.url_redaction import redacted
from llama_runner.request.check_method_arguments import public_method
from llama_runner.request.request_as_command_line import run_arguments
from llama_runner.request.request_keywords import checked
from llama_runner.serving import systemd_and_launchd_units
from llama_runner.store.errors import as_store_error
from llama_runner.system.files import read_bounded
from llama_runner.system.platforms import IS_MACOS
from llama_runner.system.processes import capture, python_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.serving.crash_restart import Policy
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

_SOURCES = ("hf_model", "gguf_path", "safetensors_dir")
_LARGEST_UNIT = 1 << 20
_PATIENCE_S = 10.0


class ServiceRefused(UsageError):
    """A service cannot be written or found: its command would be unsafe, or there is none of that name."""


class Service(Value):
    """One service, installed or to be installed."""

    name: str
    path: Path
    """Where its unit is, or would be."""
    text: str
    start: str
    """The command of the system that starts it now and at each login."""
    stop: str
    """The command of the system that ends it, and starts it no more."""
    advice: tuple[str, ...] = ()
    """What else has to be done for it to run, each with its command."""

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``service --json``."""
        return {**self.__dict__, "path": str(self.path), "advice": list(self.advice)}


class Services:
    """The services of the user who runs this, for servers and gateways of one root. ``Runner.services`` makes it.

    Nothing is started or stopped: ``Service.start`` and ``Service.stop`` are the commands to type.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @public_method
    def of_model(
        self,
        model: str | Path | None = None,
        *,
        name: str | None = None,
        server: ServerOptions | None = None,
        restart: Policy = "no",
        restart_limit: int = 5,
        **keywords: Unpack[RunnerKeywords],
    ) -> Service:
        """Return the service that would prepare and serve a model, without writing it; as ``of_command``.

        ``name`` defaults to that of the model. ``restart`` is what ``run`` itself does when the server ends; the
        system starts it again as well.
        """
        keywords = checked(keywords)
        if server is not None and server.api_key:
            raise ServiceRefused("a unit holds no key", hint="use api_key_file")
        given = (model, *(keywords.get(source) for source in _SOURCES))
        source = next((str(each) for each in given if each), "demo" if keywords.get("demo") else None)
        if source is None:
            raise ServiceRefused("say which model, as for serve")
        words = run_arguments(model, server, keywords, {"restart": restart, "restart_limit": restart_limit})
        inherit = server is not None and server.inherit_environment
        return self.of_command(words, name=name or Path(source).name, inherit_environment=inherit)

    @public_method
    def of_command(
        self,
        words: Sequence[str],
        *,
        name: str,
        inherit_environment: bool = False,
        system: bool = False,
        command: Literal["run", "up", "gateway"] = "run",
        kind: systemd_and_launchd_units.Kind | None = None,
    ) -> Service:
        """Return the service that would run ``llama-runner run`` with these words, without writing it.

        ``command`` is another one that serves; its words name the configuration. ``kind`` is what that starts, by
        default the gateway for ``gateway`` and a server else. With ``system`` it is a systemd unit of the system that
        runs as the present user; root has to write it. Relative paths begin at the working directory.
        ``inherit_environment``: ``LLAMA_ARG_*`` variables of ours are part of it. ``ServiceRefused`` for words that
        must not stand in a file that others can read.
        """
        if os.environ.get("LLAMA_API_KEY"):
            raise ServiceRefused("a unit holds no key, so LLAMA_API_KEY would not reach it; use --api-key-file")
        if any(redacted(word) != word for word in words):
            raise ServiceRefused("a unit can be read by others, so no URL in it may have a password or a token")
        script = Path(sys.executable).with_name("llama-runner")
        program = [str(script)] if script.exists() else list(python_module("llama_runner"))
        argv = [*program, command, *words]
        variables = systemd_and_launchd_units.variables(os.environ, self._root, llama_env=inherit_environment)
        for word in (name, *argv, str(Path.cwd()), *variables.values()):
            if printable(word) != word:
                raise ServiceRefused(
                    f"a service cannot have control characters or other than UTF-8 in its command: {word!a}"
                )
        kind = kind or ("gateway" if command == "gateway" else "server")
        if not system:
            return self._at(name, systemd_and_launchd_units.unit(name, argv, Path.cwd(), variables, kind=kind))
        if IS_MACOS:
            raise ServiceRefused("a unit of the system is for systemd")
        text = systemd_and_launchd_units.systemd(name, argv, Path.cwd(), variables, user=getpass.getuser(), kind=kind)
        path = Path("/etc/systemd/system") / systemd_and_launchd_units.where(name, os.environ).name
        return Service(name, path, text, *systemd_and_launchd_units.commands_of_system(path))

    @public_method
    def install(self, service: Service, *, force: bool = False) -> Service:
        """Write the unit and return the service; ``ServiceRefused`` over another of the same name, unless ``force``.

        ``Runner.check`` says before whether what it starts can work.
        """
        if not force and service.path.exists() and self.find(service.name).text != service.text:
            raise ServiceRefused(
                f"a service called {service.name!r} is installed already: {service.path}",
                hint=f"--force writes over it; service show --name {service.name} prints it",
            )
        try:
            service.path.parent.mkdir(parents=True, exist_ok=True)
            service.path.write_text(service.text, encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise as_store_error(error, service.path) from error
        return service

    @public_method
    def find(self, name: str) -> Service:
        """Return the installed service of that name; ``ServiceRefused`` where there is none."""
        path = systemd_and_launchd_units.where(name, os.environ)
        if not path.exists():
            raise ServiceRefused(
                f"no service called {name!r} is installed: there is no {path}",
                hint="llama-runner service install MODEL writes one",
            )
        return self._at(name, read_bounded(path, _LARGEST_UNIT).decode("utf-8", "replace"))

    @public_method
    def remove(self, name: str) -> Service:
        """Remove the unit of an installed service and return it. A server that it started goes on."""
        service = self.find(name)
        try:
            service.path.unlink()
        except OSError as error:
            raise as_store_error(error, service.path) from error
        return service

    def installed(self) -> list[Service]:
        """Return the installed services of all roots, by name."""
        pattern = systemd_and_launchd_units.where("NAME", os.environ)
        prefix, suffix = pattern.name.split("NAME")
        paths = sorted(pattern.parent.glob(f"{prefix}*{suffix}"))
        return [self.find(path.name[len(prefix) : -len(suffix)]) for path in paths]

    @public_method
    def state(self, name: str) -> str:
        """Return what the system says of an installed service: ``active``, ``inactive``, ``failed``, ``unknown``, …"""
        path = self.find(name).path
        mac = ["launchctl", "list", path.stem]
        argv = mac if IS_MACOS else ["systemctl", "--user", "is-active", path.name]
        try:
            done = capture(argv, timeout=_PATIENCE_S)
        except (OSError, TimeoutError):
            return "unknown"
        if IS_MACOS:
            return "inactive" if done.status else "active"
        return done.out.decode("utf-8", "replace").strip() or "unknown"

    @staticmethod
    def _at(name: str, text: str) -> Service:
        path = systemd_and_launchd_units.where(name, os.environ)
        advice = systemd_and_launchd_units.advice(os.environ, lingers=_lingers(), user=getpass.getuser())
        return Service(name, path, text, *systemd_and_launchd_units.commands(path), tuple(advice))


def _lingers() -> bool:
    """Return whether the services of this user run without a login."""
    return (Path("/var/lib/systemd/linger") / getpass.getuser()).exists()
