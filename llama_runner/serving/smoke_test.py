"""Smoke test of llama.cpp's programs, before they are recorded.

They print their version, list the devices of their backend, and serve the demo model, which answers with the sentence
that it was trained on. Programs that compute wrongly give another answer.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import threading
import time
from typing import TYPE_CHECKING

from llama_runner.core.errors import Interrupted, ServerError
from llama_runner.core.immutable_values import Value
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp.backend_build_options import BACKENDS, RPC_TARGET, split_rpc
from llama_runner.llama_cpp.executable_format import platforms
from llama_runner.llama_cpp.program_environment import program_environment
from llama_runner.serving import smoke_test_errors
from llama_runner.store import layout
from llama_runner.system import hardware
from llama_runner.system.files import open_private_log, open_regular, read_head
from llama_runner.system.platforms import EXE

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.step_interfaces import Workspace
    from llama_runner.serving.server_process import Server

PATIENCE_S = 120.0
"""How long a program may take for an answer, or to load the demo model. A GPU's first start takes most of a minute."""

SERVER, QUANTIZE = "llama-server", "llama-quantize"
PROVEN = "demo model said its sentence"

_VERSION = re.compile(
    r"version: (?P<text>\S*\s*\(build (?P<build>\d+), commit (?P<commit>\w+)\)"
    r"|(?P<old_build>\d+) \((?P<old_commit>\w+)\))"  # until the end of 2025
)
_DEVICE = re.compile(r"\s+(\S+): \S")
_NOBODYS = "unknown"
"""What llama.cpp calls a commit that was not told when it was built."""
_TAIL = 12
_POLL_S = 0.02
_CONTEXT = 512
_ALL_LAYERS = 99


class Expected(Value):
    """What the programs must report; None accepts anything. ``commit`` may be abbreviated to any length."""

    backend: str = "cpu"
    build: int | None = None
    commit: str | None = None


def prove(directory: Path, expected: Expected, workspace: Workspace, *, patience: float = PATIENCE_S) -> None:
    """Run the smoke test on the programs of a directory, and note their version and devices.

    Raises a ``Rejected``, one class for each cause, and ``Interrupted``. A backend that computes on devices has to
    find one: where there is none, nothing of it can be proven. Each answer may take ``patience`` seconds.
    """
    proof = _Proof(directory, workspace, patience)
    server = proof.program(SERVER)
    if server is None:
        raise smoke_test_errors.CannotRun(SERVER, "there is none")
    proof.version(server, expected)
    proof.devices(server, expected.backend)
    if quantize := proof.program(QUANTIZE):
        said = proof.ask(quantize, "--help", statuses=(0, 1))  # 1 is what it ends with after its help
        if not any("Q8_0" in line for line in said):
            raise smoke_test_errors.Fake(QUANTIZE, "names no types", workspace.log_name)
    if rpc := proof.program(RPC_TARGET):
        proof.ask(rpc, "--help")
    proof.sentence(server, expected.backend)
    workspace.add_facts(backend=expected.backend, proven=PROVEN)


def prove_under_wine(
    directory: Path, expected: Expected, workspace: Workspace, wine: Path, *, patience: float = PATIENCE_S
) -> None:
    """Let programs for Windows serve the demo model on Linux, and note their version.

    Raises as ``prove`` does. llama-server is not asked for its version by an option: Wine's own C++ runtime does not
    end it after the answer. It serves on a port that is free now, as Wine holds its sockets in another process.
    """
    proof = _Proof(directory, workspace, patience)
    program = workspace.scratch / SERVER
    words = ["WINEDEBUG=-all", str(wine), str((directory / f"{SERVER}.exe").absolute())]
    program.write_text(f'#!/bin/sh\nexec env {shlex.join(words)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workspace.log_path.parent.mkdir(parents=True, exist_ok=True)
    with open_private_log(workspace.log_path):
        pass  # the server appends to it
    proof.sentence(program, expected.backend, port=port)
    found = re.fullmatch(r"b(\d+)-(\w+)", proof.build_info)
    if found is None:
        raise smoke_test_errors.Fake(SERVER, "says no version", workspace.log_name)
    if expected.build not in (None, int(found[1])):
        raise smoke_test_errors.WrongVersion(SERVER, f"build {expected.build}", f"build {found[1]}")
    commit = None if found[2] == _NOBODYS else found[2]
    workspace.add_facts(backend=expected.backend, build=int(found[1]), commit=commit, proven=f"{PROVEN}, under Wine")


class _Proof:
    """One proof: where the programs are, and what it takes to run them."""

    def __init__(self, directory: Path, workspace: Workspace, patience: float) -> None:
        self._directory, self._workspace, self._patience = directory, workspace, patience
        self._log_name = workspace.log_name
        self._environment = program_environment(os.environ)
        self.build_info = ""
        """What the server that said the sentence calls its build."""

    def program(self, name: str) -> Path | None:
        """Return a program if it is there; a ``Rejected`` if it is none for this machine."""
        path = self._directory / f"{name}{EXE}"
        if not path.exists():
            return None
        try:
            found, here = platforms(path), hardware.platform_tag()
            is_script = read_head(path, 2) == b"#!"
        except OSError as error:
            raise smoke_test_errors.CannotRun(name, (error.strerror or str(error)).lower()) from error
        if found and here not in found:
            raise smoke_test_errors.AnotherArchitecture(name, found, here)
        if not (found or is_script):
            raise smoke_test_errors.CannotRun(name, "it is no executable")
        return path

    def ask(self, program: Path, word: str, *, statuses: tuple[int, ...] = (0,)) -> list[str]:
        """Return the lines of a program's answer to one word."""
        from llama_runner.engine import run_program  # noqa: PLC0415 - not on the warm path

        said: list[str] = []
        cancellation, ended, doing = run_program.Cancellation(), threading.Event(), f"with {word}"
        deadline = time.monotonic() + self._patience

        def watch() -> None:
            while not ended.wait(_POLL_S):
                if self._workspace.is_cancelled() or time.monotonic() > deadline:
                    cancellation.cancel()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        log_path = self._workspace.log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open_private_log(log_path) as log:
                run_program.run(
                    [program, word],
                    env=self._environment,
                    cwd=self._workspace.scratch,  # for what a crash leaves behind
                    log=log,
                    log_name=self._log_name,
                    on_line=said.append,
                    cancellation=cancellation,
                )
        except ProgramFailed as error:
            if error.status not in statuses:
                raise smoke_test_errors.rejection(
                    program.stem, doing, error.status, error.tail, self._log_name
                ) from error
        except Interrupted:
            self._workspace.check_cancelled()
            raise smoke_test_errors.NotReady(
                program.stem, doing, self._patience, said[-_TAIL:], self._log_name
            ) from None
        except OSError as error:
            if error.filename is None or os.fspath(error.filename) == os.fspath(log_path):
                raise
            raise smoke_test_errors.CannotRun(program.stem, (error.strerror or str(error)).lower()) from error
        finally:
            ended.set()
            watcher.join()
        return said

    def version(self, server: Path, expected: Expected) -> None:
        """Compare the reported version with the requested one."""
        said = self.ask(server, "--version")
        found = next(filter(None, map(_VERSION.search, said)), None)
        if found is None:
            raise smoke_test_errors.Fake(SERVER, "says no version", self._log_name)
        build = int(found["build"] or found["old_build"])
        commit = found["commit"] or found["old_commit"]
        if expected.build not in (None, build):
            raise smoke_test_errors.WrongVersion(SERVER, f"build {expected.build}", f"build {build}")
        wanted = expected.commit
        if wanted is not None and not (wanted.startswith(commit) or commit.startswith(wanted)):
            raise smoke_test_errors.WrongVersion(SERVER, f"commit {wanted}", f"commit {commit}")
        self._workspace.add_facts(version=found["text"], build=build, commit=None if commit == _NOBODYS else commit)

    def devices(self, server: Path, backend: str) -> None:
        """Check that the backend has a device, unless it computes on the processor."""
        said = self.ask(server, "--list-devices")
        start = next((index for index, line in enumerate(said) if line.startswith("Available devices")), None)
        if start is None:
            raise smoke_test_errors.Fake(SERVER, "lists no devices", self._log_name)
        devices = [found[1] for line in said[start:] if (found := _DEVICE.match(line))]
        wanted = BACKENDS[split_rpc(backend)[0]].device
        if wanted is not None and not any(name.startswith(wanted) for name in devices):
            raise smoke_test_errors.NoDevice(backend, devices, self._log_name)
        self._workspace.add_facts(devices=devices)

    def sentence(self, server: Path, backend: str, *, port: int = 0) -> None:
        """Serve the demo model and check its answer."""
        from llama_runner.convert import convert  # noqa: PLC0415 - not on the warm path
        from llama_runner.demo import ANSWER, MODEL_DIRECTORY  # noqa: PLC0415 - as above
        from llama_runner.serving.errors import ServerDied  # noqa: PLC0415
        from llama_runner.serving.llama_server.launch_spec import ServerOptions, spec_of  # noqa: PLC0415
        from llama_runner.serving.server_process import Server  # noqa: PLC0415

        tools, log = self._workspace.scratch, self._workspace.log_path
        model = tools / "demo.gguf"
        convert(MODEL_DIRECTORY, model, name="demo", cancelled=self._workspace.is_cancelled)
        options = ServerOptions(
            port=port,
            ctx_size=_CONTEXT,
            threads=1,  # several that wait for each other on a busy machine take 20 times as long
            gpu_layers=None if BACKENDS[split_rpc(backend)[0]].device is None else _ALL_LAYERS,
            load_timeout=self._patience,
        )
        spec = spec_of(options, binary=server, model=model, alias="demo", trained_context=None, cores=1)
        deadline = time.monotonic() + self._patience
        before = log.stat().st_size
        try:
            with Server(
                spec,
                log=log,
                log_name=self._log_name,
                registry=layout.servers(tools),
                sink=lambda _event: None,
                terminal=None,
            ) as running:
                running.wait_ready(lambda: self._workspace.is_cancelled() or time.monotonic() > deadline)
                said = self._answer(running)
                self.build_info = running.props().build if port else ""
                if said is None and (status := running.stop()) not in (0, -15):
                    raise ServerDied(status, [], self._log_name)
        except ServerDied as error:
            tail = self._tail(before)
            if error.status == 0:
                raise smoke_test_errors.Fake(SERVER, "ends by itself and serves nothing", self._log_name) from error
            raise smoke_test_errors.rejection(SERVER, _SERVING, error.status, tail, self._log_name) from error
        except Interrupted:
            self._workspace.check_cancelled()
            raise smoke_test_errors.NotReady(
                SERVER, _SERVING, self._patience, self._tail(before), self._log_name
            ) from None
        except ServerError as error:
            raise smoke_test_errors.Fake(SERVER, f"does not serve the demo model: {error}", self._log_name) from error
        finally:
            model.unlink(missing_ok=True)
        if said != ANSWER:
            raise smoke_test_errors.WrongSentence(ANSWER, said, self._log_name)

    def _answer(self, running: Server) -> str | None:
        """Return what it answers to the demo model's question, or None without a good answer in time."""
        from llama_runner.demo import QUESTION  # noqa: PLC0415 - not on the warm path
        from llama_runner.serving.llama_server.readiness import Asked  # noqa: PLC0415

        body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 64}
        asked, answers = Asked(running.url, running.api_key), list[bytes | None]()

        def ask() -> None:
            answers.append(asked.ask("POST", "/v1/chat/completions", body, timeout=self._patience))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        deadline = time.monotonic() + self._patience
        while asking.is_alive() and time.monotonic() < deadline:
            self._workspace.check_cancelled()
            asking.join(_POLL_S)
        try:
            content = json.loads(answers[0] or "")["choices"][0]["message"]["content"]
        except (ValueError, TypeError, LookupError, RecursionError):
            return None
        return content.strip() if isinstance(content, str) else None

    def _tail(self, start: int) -> list[str]:
        """Return the last lines of the log that were written from ``start`` on."""
        with open_regular(self._workspace.log_path) as log:
            log.seek(max(start, log.seek(0, os.SEEK_END) - (1 << 14)))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return [line for line in lines if line.strip()][-_TAIL:]


_SERVING = "serving the demo model"
