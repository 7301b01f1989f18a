"""Progress bars on a pseudo-terminal: of real steps, and what is left on the screen afterwards."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llama_runner.cli.progress_bars import ProgressBars
from llama_runner.core.events import TrainingProgress
from tests.cli.terminal import PATIENCE_S, Screen, Session
from tests.conftest import MODULE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")


def bars(screen: Screen) -> list[str]:
    return [line for line in screen.seen if re.search(r"\d+% \|", line)]


def test_conversion_and_quantization_have_bars_that_leave_no_trace(session: Callable[..., Session], root: Path) -> None:
    code, screen = session(*MODULE, "prepare", "--demo", "--root", root).finish()
    assert code == 0, screen.text
    shown = bars(screen)
    assert {line.split()[0] for line in shown} >= {"convert", "quantize"}, screen.seen
    assert any("B/s" in line for line in shown), "a rate"
    assert not [line for line in screen.text if "%" in line], screen.text
    assert [line.split()[0] for line in screen.text if line][-2:] == ["model", "server"]


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_dumb_terminal_has_no_bars_and_no_colour_has_no_colour(
    session: Callable[..., Session], root: Path, env: dict[str, str]
) -> None:
    code, screen = session(*MODULE, "prepare", "--demo", "--root", root, env=env).finish()
    assert code == 0, screen.text
    assert bool(bars(screen)) is ("NO_COLOR" in env)


def test_a_narrow_terminal_has_narrow_bars(session: Callable[..., Session], root: Path) -> None:
    code, screen = session(*MODULE, "prepare", "--demo", "--root", root, columns=30).finish()
    assert code == 0
    assert bars(screen)


PRINTER = """
import os, sys
from llama_runner.cli import main, text_output
from llama_runner.cli.escape_control_characters import printable_streams
from llama_runner.core.errors import StepError
from llama_runner.core.events import StepFinished, StepProgress, StepStarted, Warned
with printable_streams():
    printer = text_output.Printer()
    def told(step, done, total=100, unit="bytes"):
        printer(StepProgress(step, done, total, unit))
    {code}
"""


def printed(session: Callable[..., Session], code: str, **options: object) -> Screen:
    text = PRINTER.replace("{code}", code.strip().replace("\n", "\n    "))
    status, screen = session(sys.executable, "-c", text, **options).finish()
    assert status == 0, screen.text
    return screen


def test_steps_side_by_side_have_a_bar_each_and_lines_come_above(session: Callable[..., Session]) -> None:
    screen = printed(
        session,
        """
for step in ("download", "convert", "compile"):
    printer(StepStarted(step, (), "log"))
    told(step, 10)
printer(Warned("x", "something to know"))
told("convert", 50)
printer(StepFinished("download", 1.0, "d", 5, "out"))
told("compile", 20)
printer.close()
sys.stderr.write("error: it failed\\n")
""",
    )
    assert {line.split()[0] for line in bars(screen)} == {"download", "convert", "compile"}
    assert [line for line in screen.text if line] == [
        "download",
        "convert",
        "compile",
        "warning: something to know",
        "download  done in 1.0 s: out (5 B)",
        "error: it failed",
    ]
    assert screen.column == 0


def test_a_bar_that_is_removed_leaves_no_gap(session: Callable[..., Session]) -> None:
    screen = printed(
        session,
        """
for step in ("first", "second", "third"):
    printer(StepStarted(step, (), "log"))
    told(step, 10)
told("first", 100)
sys.stderr.flush()
os._exit(0)
""",
    )
    assert [line.partition("%")[0] for line in screen.text if "%" in line] == ["second     10", "third      10"]
    first = screen.text.index("third") + 1
    assert "second" in screen.text[first], "it moved up to where the first was"


def test_a_hostile_name_prints_no_control_characters(session: Callable[..., Session]) -> None:
    screen = printed(
        session,
        r"""
evil = "\x1b]0;x\x07\x9b2J\nhint: run\u202e"
printer(StepStarted(evil, (), "log"))
told(evil, 10, 100, "\x1b[31m")
told(evil, 20, 100, "\x1b[31m")
printer.close()
""",
    )
    assert bars(screen)
    assert not [line for line in screen.seen if re.search("[\x00-\x1f\x7f-\x9f\u202e]", line) or line == "hint: run"]


def test_what_was_there_before_a_download_resumed_is_no_speed(session: Callable[..., Session]) -> None:
    screen = printed(
        session,
        """
printer(StepStarted("download", (), "log"))
told("download", 7 << 30, 8 << 30)
import time; time.sleep(0.3)
told("download", (7 << 30) + 1, 8 << 30)
told("download", 1 << 20, 8 << 30)
printer.close()
""",
    )
    assert "7.00G of 8.00G" in bars(screen)[0]
    assert not [line for line in bars(screen) if "GB/s" in line]


def test_a_terminal_loads_the_library_of_bars_only_for_work() -> None:
    code = """
import sys
from llama_runner.cli import text_output
from llama_runner.core.events import StepProgress, StepSkipped
printer = text_output.Printer()
printer._live = True
printer(StepProgress("hash", 1, 2, "bytes"))
printer(StepProgress("hash", 2, 2, "bytes"))
printer(StepSkipped("convert"))
assert "tqdm" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("@click.command()", "main.main([], command=work)"),
        ("", "plan_model.__dict__.update(plan=lambda _: work()) or entry_point.main(['plan', '--demo'])"),
    ],
    ids=["click", "plain words"],
)
def test_ctrl_c_removes_the_bars_and_leaves_the_terminal_as_it_was(
    command: str, call: str, session: Callable[..., Session]
) -> None:
    text = PRINTER.replace(
        "{code}",
        f"""
    import click, time
    from llama_runner.cli import plan_model, entry_point
    {command}
    def work():
        from llama_runner.cli import text_output
        printer = text_output.Printer()
        printer(StepStarted("download", (), "log"))
        printer(StepProgress("download", 10, 100, "bytes"))
        while True:
            time.sleep(10)
    sys.exit({call})
""".strip(),
    )
    running = session(sys.executable, "-c", text)
    running.read_until(lambda text: "% |" in text)
    os.write(running.master, b"\x03")
    code, screen = running.finish()
    assert code == 130
    assert [line.removeprefix("^C") for line in screen.text if line][-1] == "interrupted"
    assert not [line for line in screen.text if "% |" in line], screen.text


class Half(BaseHTTPRequestHandler):
    """Sends half of what it has and waits until the test has seen the bar."""

    content = os.urandom(1 << 20)
    rest = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        half = len(self.content) // 2
        with suppress(OSError):  # the command may have ended
            self.wfile.write(self.content[:half])
            self.wfile.flush()
            self.rest.wait(PATIENCE_S)
            self.wfile.write(self.content[half:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slow_url() -> Iterator[str]:
    Half.rest.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/llama-b10605-bin-x.tar.gz"
        Half.rest.set()
        server.shutdown()
        thread.join()


def install(session: Callable[..., Session], url: str, root: Path) -> Session:
    digest = f"sha256:{hashlib.sha256(Half.content).hexdigest()}"
    running = session(*MODULE, "bins", "install", url, "--sha256", digest, "--root", root)
    running.read_until(lambda text: "k of 1.00M" in text or "K of 1.00M" in text)
    return running


def test_a_download_has_a_bar_and_an_error_comes_below(
    session: Callable[..., Session], slow_url: str, tmp_path: Path
) -> None:
    running = install(session, slow_url, tmp_path)
    Half.rest.set()
    code, screen = running.finish()
    assert code != 0
    assert "fetch_url" in {line.split()[0] for line in bars(screen)}
    assert not [line for line in screen.text if "% |" in line], screen.text
    assert [line for line in screen.text if line.startswith("error: ")]
    assert [line for line in screen.text if line.startswith("fetch_url done in")]


def test_ctrl_c_in_a_download_leaves_the_screen_and_the_terminal_as_they_were(
    session: Callable[..., Session], slow_url: str, tmp_path: Path
) -> None:
    running = install(session, slow_url, tmp_path)
    os.write(running.master, b"\x03")
    code, screen = running.finish()
    assert code == 130
    assert not [line for line in screen.text if "% |" in line], screen.text
    assert [line for line in screen.text if line][-1] == "interrupted"


def test_the_bar_of_a_training_has_loss_learning_rate_and_time_left() -> None:
    stream = io.StringIO()
    bars = ProgressBars(stream)
    for step, held_out in ((1, None), (2, 1.5)):
        bars.show(TrainingProgress("train", step, 10, "steps", 3.0 / step, 0.0002, 4000.0, held_out))
        bars._bars["train"].refresh()
    first, *_, last = [line for line in re.split(r"\r|\x1b\[K", stream.getvalue()) if "loss" in line]
    assert first.startswith("train, loss 3, rate 0.0002  10% |")
    assert last.startswith("train, loss 1.5, 1.5 held out, rate 0.0002  20% |")
    assert last.endswith("left")
    bars.close_all()
