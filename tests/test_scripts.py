"""The scripts use nothing that macOS lacks (its bash is 3.2), and PowerShell can parse the one for Windows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_powershell

from tests.conftest import REPOSITORY
from tests.serving.play import until

LINUX_ONLY = {"test_windows.sh"}
"""Needs Wine for x86-64."""
SCRIPTS = [*sorted((REPOSITORY / "scripts").glob("*.sh")), REPOSITORY / ".ci" / "run"]
SCRIPTS = [path for path in SCRIPTS if path.name not in LINUX_ONLY]
POWERSHELL = REPOSITORY / "scripts" / "run_server.ps1"
NOT_ON_MACOS = {
    r"\b(mapfile|readarray|coproc)\b": "mapfile -t lines",
    r"\b(declare|local|typeset) -[a-zA-Z]*[Anlug]": "declare -A table",
    r"\$\{[^}]*(,,|\^\^|@[A-Za-z]\})": "${name,,}",
    r"\$\{\w+\[-\d+\]": "${words[-1]}",
    r"\[\[ -v |(^|[^&])&>>|\|&|\bwait -[nfp]|;;?&( |$)": "make |& tee log",
    r"\b(globstar|lastpipe|EPOCHSECONDS|EPOCHREALTIME|BASHPID)\b": "shopt -s globstar",
    r"\bprintf [^|;]*%\(": "printf '%(%F)T'",
    r"(^ *|[;&|(`!] *|\b(if|then|do|else|exec) )(flock|setsid|timeout|realpath|nproc|tac|sha256sum)\b": "! flock 9",
    r"\breadlink -[a-zA-Z]*[fem]": "readlink -f .",
    r"\bsed (-[a-zA-Z]+ )*(-[a-zA-Z]*i|--in-place|-[a-zA-Z]*r)\b": "sed -i s/a/b/ file",
    r"\b(stat (-[a-zA-Z]*c|--)|date (-[a-zA-Z]*[dI]|--|\+\S*%N)|cp --|mktemp --|sort -[a-zA-Z]*V|xargs -[a-zA-Z]*r)": (
        "stat -c %s file"
    ),
    r"\b(find .*-(printf|regextype)|grep (-[a-zA-Z]+ )*-[a-zA-Z]*P|du -[a-zA-Z]*b|ln -[a-zA-Z]*[rT])": "grep -oP x",
    r"\b(head -n -|(tail|ls|ln|du|touch) --|touch -d)": "head -n -1 file",
}
"""What bash 3.2 or the tools of macOS lack, each with a line in which it is."""


def lines(text: str) -> list[str]:
    """Return the lines of a script without those that are comments."""
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_19_06_a_script_uses_nothing_that_macos_lacks(script: Path) -> None:
    for pattern in NOT_ON_MACOS:
        assert not [line for line in lines(script.read_text(encoding="utf-8")) if re.search(pattern, line)], pattern


@pytest.mark.parametrize(("pattern", "line"), NOT_ON_MACOS.items())
def test_19_06_what_macos_lacks_is_found(pattern: str, line: str) -> None:
    assert re.search(pattern, line)


def parse(script: bytes) -> tree_sitter.Node:
    """Return the syntax tree of a script for PowerShell."""
    language = tree_sitter.Language(tree_sitter_powershell.language())
    return tree_sitter.Parser(language).parse(script).root_node


def commands(node: tree_sitter.Node) -> list[str]:
    """Return the commands of a script for PowerShell."""
    found = [node.text.decode()] if node.type == "command" and node.text else []
    return found + [command for child in node.children for command in commands(child)]


def test_19_04_powershell_can_parse_the_script_for_windows() -> None:
    script = POWERSHELL.read_bytes()
    assert script.isascii(), "Windows PowerShell 5.1 reads other characters as those of the system's code page"
    assert not parse(script).has_error
    assert parse(script.replace(b"}", b"", 1)).has_error, "the parser finds mistakes"


def test_19_04_the_script_for_windows_sets_up_what_the_one_for_others_does() -> None:
    ran = commands(parse(POWERSHELL.read_bytes()))
    here = (REPOSITORY / "scripts" / "setup.sh").read_text(encoding="utf-8")
    installed = {command.partition(" ")[2] for command in ran if command.startswith("Invoke-PipInstall ")}
    assert installed == {"--upgrade 'pip>=25.1'", '--editable "${repository}[gateway]"'}
    assert all(f"pip_install {words}\n" in here for words in installed)
    assert "& $base -I -m venv --clear $venv" in ran
    assert "& $python -I -m llama_runner.run_server @words" in ran


PYTHON = """#!/bin/sh
case "$*" in
"-I -m venv "*) {venv}; mkdir -p "$5/bin"; cp "$0" "$5/bin/python" ;;
"-I -m pip install "*) exit {status} ;;
"-I -m "*) [ -e "$0" ] ;;
*) exec {python} "$@" ;;
esac
"""
"""Makes environments without packages; ``status`` is how pip ends."""


class FirstRun:
    """A checkout with nothing but the set-up, which is run with a Python of ours and few programs."""

    def __init__(self, directory: Path, *, venv: str = ":", status: int = 0) -> None:
        self.root = directory / "a checkout"
        (self.root / "scripts").mkdir(parents=True)
        (self.root / "pyproject.toml").touch()
        os.utime(self.root / "pyproject.toml", (0, 0))
        (self.root / "scripts" / "setup.sh").write_text((REPOSITORY / "scripts" / "setup.sh").read_text())
        python = directory / "python"
        python.write_text(PYTHON.format(venv=venv, status=status, python=sys.executable))
        python.chmod(0o755)
        (directory / "bin").mkdir()
        for name in ("bash", "sh", "dirname", "mkdir", "cp", "touch", "rm"):
            (directory / "bin" / name).symlink_to(str(shutil.which(name)))
        self._environment = {"PYTHON": str(python), "PATH": str(directory / "bin")}

    def start(self) -> subprocess.Popen[str]:
        command = ["bash", "-euc", 'source "$0/scripts/setup.sh"; set_up run', str(self.root)]
        return subprocess.Popen(command, env=self._environment, stderr=subprocess.PIPE, text=True)


def test_a_first_run_without_a_network_says_what_to_check_and_is_not_taken_for_done(tmp_path: Path) -> None:
    first = FirstRun(tmp_path, status=1)
    run = first.start()
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 5
    assert "error: pip could not install everything; see above\nhint: check the network and pip's index" in said
    assert not (first.root / ".venv" / ".ready-run").exists()


def test_19_06_two_first_runs_make_one_environment(tmp_path: Path) -> None:
    """The second one waits for the first. No program flock is needed, which macOS lacks."""
    first = FirstRun(tmp_path, venv=f"echo venv >>'{tmp_path}/log'; read -r _ <'{tmp_path}/go'")
    os.mkfifo(tmp_path / "go")
    go = os.open(tmp_path / "go", os.O_RDWR)
    runs = [first.start() for _ in range(2)]
    until((tmp_path / "log").exists, "the first environment")
    os.write(go, b"\n\n")
    said = [run.communicate(timeout=60)[1] for run in runs]
    os.close(go)
    assert [run.returncode for run in runs] == [0, 0], said
    assert (tmp_path / "log").read_text() == "venv\n"
    assert sorted(said) == ["", "setting up .venv (run); this happens once\n"]
