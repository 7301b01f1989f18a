"""Fuzz target: command lines made from the real commands and options, with odd values.

A case runs `main` in a forked process, now and then in a process of its own, in a directory with odd files. There is no
compiler, no program on PATH and no network, so nothing is built and no server starts.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import click

from llama_runner.cli.entry_point import main
from llama_runner.cli.main import cli
from llama_runner.core.errors import LlamaRunnerError
from tests.conftest import shared_root
from tests.convert.checkpoints import llama
from tests.fuzz import mutate
from tests.fuzz.gguf_header import head, pair, string
from tests.fuzz.harness import Case, Finding, Target, check_text, encoded, explore

EXIT_CODES = {0, 2, 3, 4, 5, 6, 7, 8, 130}
LIMIT_S = 40.0
FILES = (
    *("fifo", "zero", "null", "directory", "empty", "text", "json", "list", "deep", "binary", "tiny.gguf", "bad.gguf"),
    *(
        "model",
        "gone",
        "no/where",
        "loop",
        "x.tar.gz",
        "x.zip",
        "unwritable/x",
        "a\nhint: b",
        "\x1b[31m",
        "\udcff",
        "huge",
    ),
)
"""Names below the working directory; see ``_odd_files``."""
NUMBERS = (
    *("nan", "inf", "-inf", "-1", "0", "1", "2", "1e308", "1e-320", "99999", "65536", "9" * 400, "-0", "1.5", "0x10"),
    *(
        "٣",
        "1_0",
        " 1",
        "+1",
        "1e5",
        "auto",
        "all",
        "8G",
        "1e9G",
        "0.0000001K",
        "1,2",
        ",",
        "1,",
        "1,,2",
        "999999999999",
    ),
)
MODELS = (
    "model",
    "tiny.gguf",
    "directory",
    "acme/none",
    "acme/none:Q4_K_M",
    "acme/none@main",
    "hf.co/a/b",
    "a",
    "--demo",
)
NEVER = {"help", "check", "print_diagnostics", "version"}
"""Options that only take time, or end before anything is read."""
WITH_PROGRAMS = ("plan", "prepare", "convert", "quantize", "status")
"""Commands that get llama.cpp's programs, where the tests have built them."""
HEAVY = {"doctor": 0.05, "bench": 0.3, "tune": 0.3, "service": 0.5}
"""Commands that are drawn less often."""


@cache
def commands() -> dict[tuple[str, ...], click.Command]:
    """Return every command by its words."""

    def walk(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        if not isinstance(command, click.Group):
            yield words, command
            return
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk((*words, name), found)

    return dict(walk((), cli))


def _path(rng: Random) -> str:
    return (
        rng.choice(FILES)
        if rng.random() < 0.85
        else rng.choice(("./", "model/../", "~/", "directory/")) + rng.choice(FILES)
    )


def _value(rng: Random, option: click.Parameter) -> str:
    kind, name = option.type, option.name or ""
    how = rng.random()
    if name == "root":  # never a directory that is not the case's own
        return rng.choice(
            ("root", "root", "root", "model", "text", "no/where", "r\udcff", "a\nb", "null", "\x1b[31m", "unwritable/x")
        )
    if isinstance(kind, click.Choice) and how < 0.7:
        return str(rng.choice(list(kind.choices)))
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)) or how < 0.1:
        return rng.choice(NUMBERS)
    if how < 0.55:
        return _path(rng)
    if how < 0.6:
        return rng.choice(MODELS[:-1])
    if how < 0.75:
        return rng.choice(
            (
                "q4_k_m",
                "f16",
                "cpu",
                "cpu-portable",
                "build",
                "system",
                "prebuilt",
                "auto",
                "latest",
                "127.0.0.1",
                "0.0.0.0",
                "::1",
            )
        )
    return mutate.text(rng)


def generate(rng: Random) -> Case:
    """Draw a command, options with values, and arguments."""
    words, command = rng.choice(list(commands().items()))
    while rng.random() > HEAVY.get(words[0], 1.0):
        words, command = rng.choice(list(commands().items()))
    argv = list(words)
    for parameter in command.params:
        if isinstance(parameter, click.Argument) and rng.random() < 0.8:
            plain = parameter.name == "model" and rng.random() < 0.6
            argv.append(rng.choice(MODELS) if plain else _value(rng, parameter))
    options = [option for option in command.params if isinstance(option, click.Option) and option.name not in NEVER]
    for option in rng.sample(options, min(len(options), rng.choice((0, 1, 1, 2, 3, 5)))):
        word = rng.choice([*option.opts, *option.secondary_opts])
        argv += (
            [word] if option.is_flag else rng.choice(([word, _value(rng, option)], [f"{word}={_value(rng, option)}"]))
        )
    if rng.random() < 0.08:
        argv += ["--", *(rng.choice(("--metrics", "-ngl", "1", "--port", mutate.text(rng))) for _ in range(2))]
    if rng.random() < 0.05:
        argv.insert(rng.randrange(len(argv) + 1), mutate.text(rng))
    return {
        "argv": [os.fsdecode(encoded(word).replace(b"\0", b"")[:100_000]) for word in argv],
        "encoding": rng.choice(("utf-8", "utf-8", "utf-8", "ascii", "latin-1")),
        "offline": rng.random() < 0.9,
        "process": rng.random() < 0.02,
    }


@cache
def _shared() -> Path:
    """Return a directory with files that no command changes; each process makes its own."""
    directory = Path(tempfile.mkdtemp(prefix="llama-runner-fuzz-files-"))
    llama(directory / "model")
    pairs = [pair("general.architecture", 8, string(b"llama")), pair("general.name", 8, string(b"\x1b[31mx\nhint: y"))]
    (directory / "tiny.gguf").write_bytes(head(pairs, []))
    with (directory / "huge").open("wb") as file:
        file.truncate(1 << 40)
    return directory


def _odd_files(where: Path) -> None:
    """Make the files that a command line may name."""
    os.mkfifo(where / "fifo")
    for name, target in (("zero", "/dev/zero"), ("null", "/dev/null"), ("gone", "nothing"), ("loop", "loop")):
        (where / name).symlink_to(target)
    for name in ("model", "tiny.gguf", "huge"):
        (where / name).symlink_to(_shared() / name)
    (where / "directory").mkdir()
    (where / "unwritable").write_bytes(b"")
    contents = {
        "empty": b"", "text": b"words\n" * 20, "json": b'{"type": "object"}', "list": b"[1]", "deep": b"[" * 100_000,
        "binary": bytes(range(256)) * 9, "bad.gguf": b"GGUF\x03\0\0\0\xff", "x.tar.gz": b"\x1f\x8b\x08junk",
        "x.zip": b"PK\x03\x04junk", "a\nhint: b": b"a", "\x1b[31m": b"b", "\udcff": b"c",
    }  # fmt: skip
    for name, content in contents.items():
        (where / name).write_bytes(content)


def _environment(scratch: Path, *, offline: bool) -> dict[str, str]:
    nowhere = "http://127.0.0.1:9"
    named = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), nowhere)
    named |= {"HF_ENDPOINT": nowhere, "PIP_INDEX_URL": nowhere, "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    named |= {"HOME": str(scratch / "home"), "PATH": str(scratch / "bin"), "TMPDIR": str(scratch / "tmp")}
    named |= {"LLAMA_RUNNER_ROOT": str(scratch / "cwd" / "root"), "LANG": "C.UTF-8", "COLUMNS": "100"}
    return named | ({"HF_HUB_OFFLINE": "1"} if offline else {})


def check(case: Case, scratch: Path) -> None:
    """Run the command line and check its exit status and what it prints."""
    for name in ("cwd", "home", "bin", "tmp"):
        (scratch / name).mkdir()
    _odd_files(scratch / "cwd")
    environment = _environment(scratch, offline=case["offline"])
    if case["argv"][:1] in [[name] for name in WITH_PROGRAMS]:  # nothing of these serves, or changes programs
        for build in shared_root().glob("bins/*/*"):
            link = scratch / "cwd" / "root" / build.relative_to(shared_root())
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(build)
    run = _in_a_process if case["process"] else _in_a_fork
    code = run(case, scratch, environment)
    out, err = ((scratch / name).read_bytes() for name in ("out", "err"))
    judge(case["argv"], code, out, err)
    if code:
        raise LlamaRunnerError(f"exit status {code}")


def judge(argv: list[str], code: int, out: bytes, err: bytes) -> None:
    """Raise ``Finding`` unless a command ended as it should."""
    told = err.decode("utf-8", "replace")
    if "Traceback (most recent call last)" in told or code not in EXIT_CODES:
        where = [f"{Path(file).name}:{line}" for file, line in re.findall(r'File "([^"]+)", line (\d+)', told)]
        last = told.rstrip().rpartition("\n")[2][:200]
        raise Finding(f"exit status {code}, {' via '.join([*where[-1:], *_ours(told)])}: {last!r}")
    if not told and code and b'"event": "error"' not in out:
        raise Finding(f"exit status {code} without a word")
    if len(re.findall(r"^(?:error|Error|interrupted)\b", told, re.MULTILINE)) > 1:
        raise Finding("more than one error line")
    for text in (out.decode("utf-8", "replace"), told):
        check_text(re.sub(r"^(?:error|hint|warning):", "", text, flags=re.MULTILINE | re.IGNORECASE))
    if len(re.findall(r"^hint:", told, re.MULTILINE)) > 1 or re.search(rb"^hint:", out, re.MULTILINE):
        raise Finding("a forged hint")
    if "--json" in argv and not code and not {"--", "--template"} & set(argv):
        for line in out.splitlines():
            try:
                json.loads(line, parse_constant=_no_constant)
            except ValueError as error:
                raise Finding(f"not JSON: {error}") from None


def _ours(told: str) -> list[str]:
    return [f"{Path(f).name}:{n}" for f, n in re.findall(r'File "([^"]+/llama_runner/[^"]+)", line (\d+)', told)][-1:]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _in_a_process(case: Case, scratch: Path, environment: dict[str, str]) -> int:
    named = environment | {"PYTHONIOENCODING": case["encoding"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (scratch / "out").open("wb") as out, (scratch / "err").open("wb") as err:
        argv = [sys.executable, "-m", "llama_runner", *case["argv"]]
        child = subprocess.Popen(
            argv,
            cwd=scratch / "cwd",
            env=named,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        return _ended(child.pid)


def _in_a_fork(case: Case, scratch: Path, environment: dict[str, str]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            code = _child(case, scratch, environment)
        except BaseException:  # noqa: BLE001 - as the interpreter does it
            traceback.print_exc()
            with contextlib.suppress(Exception):
                sys.stderr.flush()
        finally:
            os._exit(code & 255)
    return _ended(pid)


def _child(case: Case, scratch: Path, environment: dict[str, str]) -> int:
    """Do what an interpreter does that is started for these arguments."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    os.chdir(scratch / "cwd")
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding=case["encoding"])
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False),
        encoding=case["encoding"],
        errors="backslashreplace",
        write_through=True,
    )
    code = main(list(case["argv"]))
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _ended(pid: int) -> int:
    """Return the exit status of a process, killing it with its group where it takes too long."""
    descriptor = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([descriptor], [], [], LIMIT_S)
    finally:
        os.close(descriptor)
    if not ready:
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)  # what it left behind in its group
    if not ready:
        raise Finding(f"hangs: no end within {LIMIT_S:.0f} s")
    return os.waitstatus_to_exitcode(status)


TARGET = Target("command_line", generate, check)


def run(seconds: float, seed: int) -> dict[str, Any]:
    """Run the target; see `harness.explore`."""
    return explore(TARGET, seconds, seed)
