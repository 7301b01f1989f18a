"""The parser of usual command lines gives what click gives, and leaves everything else to click."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from llama_runner.cli import arguments_without_click, main
from llama_runner.cli.arguments import Arguments, arguments_of
from llama_runner.core.option_definition import Option
from tests.conftest import Command, on_a_free_port

ODD = ("", "-", "--", "-1", "0", "٣", "1_0", " 1", "+1", "1e3", "nan", ".5", "5.", "9" * 20, "auto", "8G", "0x1", "a=b")
OUTSIDE = ("--help", "-h", "--version", "--metrics", "--no-projector", "--print-diagnostics", "--roo", "-qq8_0", "-fa")


def command_of(name: str) -> click.Command:
    found = main.cli.get_command(click.Context(main.cli), name)
    assert found is not None
    return found


def parsed_by_click(words: list[str]) -> Arguments:
    command = command_of(words[0])
    before, extra = main._take_extra(words, main.cli)
    context = command.make_context(words[0], before[1:], obj=extra)
    with context:
        return arguments_of(context.params)


def typed(arguments: Arguments) -> dict[str, tuple[type, object]]:
    return {name: (type(value), value) for name, value in arguments.items()}


def values(option: Option) -> st.SearchStrategy[str]:
    numbers = st.integers(-2, 70000).map(str)
    words = st.sampled_from([*option.choices, "q8_0", "a b", "x,y", "org/model:Q4_K_M", "8GiB", "0.5"])
    return st.one_of(words, words, numbers, st.sampled_from(ODD), st.text(max_size=4))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    name = draw(st.sampled_from(sorted(arguments_without_click.COMMANDS)))
    words = [name]
    for _ in range(draw(st.integers(0, 5))):
        option = draw(st.sampled_from(arguments_without_click.COMMANDS[name].options))
        flag = draw(st.sampled_from([*option.flags, *option.old_flags]))
        match draw(st.sampled_from(("option", "option", "option", "joined", "word", "outside"))):
            case "option":
                words += [flag] if option.kind == "flag" else [flag, draw(values(option))]
            case "joined":
                words.append(f"{flag}={draw(values(option))}")
            case "word":
                words.append(draw(values(option)))
            case "outside":
                words.append(draw(st.sampled_from((*OUTSIDE, *ODD))))
    return [*words, *draw(st.sampled_from(((), (), ("--",), ("--", "--metrics"), ("--", "-np", "2"))))]


@settings(deadline=None)
@given(command_lines())
@example(["run", "--demo"])
@example(["run", "model", "-q", "q8_0", "--port=0", "--lora", "a", "--lora", "b", "--json", "--", "--metrics"])
@example(["run", "--load-timeout", "7", "--max-size", "8G", "-ngl", "all", "-c", "auto", "--detach"])
@example(["plan", "-q=q8_0", "-ngl=5"])
@example(["plan", "--port", "1", "--port", "2", "--demo", "--demo"])
def test_what_it_accepts_means_the_same_to_click(words: list[str]) -> None:
    found = arguments_without_click.parse(words)
    event("left to click" if found is None else "accepted")
    if found is not None:
        expected = parsed_by_click(words)
        assert typed(found) == typed(expected)
        assert found.given == expected.given
        assert found.extra == expected.extra


@pytest.mark.parametrize(
    "line",
    [
        "run --demo",
        "run org/model:Q8_0 --port 0 --detach",
        "run ./my-model -q q8_0 -c 4096 --gpu-layers=all --json -- --metrics -np 2",
        "plan --demo --root /tmp/x --json",
        "prepare org/model --offline",
    ],
)
def test_usual_command_lines_need_no_click(line: str) -> None:
    words = line.split()
    found = arguments_without_click.parse(words)
    assert found is not None
    assert typed(found) == typed(parsed_by_click(words))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "help",
        "ps",
        "serve --demo",
        "run --help",
        "run -h",
        "run --demo --no-such-option",
        "run --dem",
        "run --demo --metrics",
        "run --demo --port",
        "run --demo --port 65536",
        "run --demo --port=-1",
        "run --demo=1",
        "run --demo -q=q8_0",
        "run one two",
        "run --print-diagnostics",
        "plan --demo --no-projector",
        "plan --converter nothing",
        "prepare --demo -- --metrics",
    ],
)
def test_everything_else_is_left_to_click(line: str) -> None:
    assert arguments_without_click.parse(line.split()) is None


def test_a_shell_that_completes_is_left_to_click(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_LLAMA_RUNNER_COMPLETE", "bash_complete")
    assert arguments_without_click.parse(["run", "--demo"]) is None


def test_plan_loads_no_click(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom llama_runner.cli.entry_point import main\n"
        f"status = main(['plan', '--demo', '--root', {str(tmp_path)!r}])\n"
        "sys.exit(status or 'click' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "launch" in done.stdout


CLICK = "import sys; from llama_runner.cli.main import main; sys.exit(main())"
CONFIG = """
[models.quick]
demo = true
port = 7
ctx_size = 512
llama = { parallel = 2 }
[models.odd]
demo = true
llama = { version = true }
"""


@pytest.mark.parametrize(
    "line",
    [
        "plan",
        "plan --demo",
        "plan --demo --json",
        "plan no.gguf",
        "plan quick",
        "plan quick --port 1 --llama-env --root {root} -- --metrics",
        "plan quik",
        "plan odd",
        "plan --demo -- --help",
        "run --demo --api-key secret --json",
        "prepare no.gguf --json",
        "run no.gguf",
        "run -",
    ],
)
def test_output_and_exit_status_are_those_of_click(line: str, llama_runner: Command, tmp_path: Path) -> None:
    (tmp_path / "cwd" / "llama-runner.toml").write_text(CONFIG)
    root = str(tmp_path / "root")
    words = on_a_free_port([word.format(root=root) for word in line.split()])
    environment = {**os.environ, "LLAMA_RUNNER_ROOT": root}
    ours = llama_runner(*words, env=environment)
    theirs = subprocess.run(
        [sys.executable, "-c", CLICK, *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path / "cwd",
        env=environment,
    )
    assert (ours.code, ours.out, ours.err) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert ours.code in (0, 2, 3), ours


@pytest.mark.parametrize("start", ["llama_runner.cli.entry_point", "llama_runner.cli.main"])
def test_output_that_nobody_reads_ends_a_command_with_status_1(start: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code = f"import sys; from {start} import main; sys.exit(main())"
    words = ["plan", "--demo", "--root", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *words], check=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, b"Traceback" in done.stderr, b"error" in done.stderr) == (1, False, False)
