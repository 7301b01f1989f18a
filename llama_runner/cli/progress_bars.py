"""Progress bars on a terminal: one line for each step that is running, below the lines of events.

Imported when the first bar is shown, as tqdm takes 50 ms to load.
"""

from __future__ import annotations

import threading
from typing import IO, TYPE_CHECKING, Any

from tqdm.std import tqdm

from llama_runner.core.events import StepProgress, TrainingProgress
from llama_runner.core.printable_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable


_FORMAT = "{desc:<9} {percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left"
_EVERY_S = 0.1
_ROOM, _WIDEST = 3, 100
_ERASE = "\r\x1b[K"


class _Bar(tqdm):  # type: ignore[type-arg]  # generic in its stubs only
    monitor_interval = 0
    """No monitor thread."""

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """Return what draws a line; it erases the rest, where the terminal may have echoed ``^C``."""

        def draw(line: str) -> None:
            file.write(f"\r{line}\x1b[K")
            file.flush()

        return draw

    @property
    def format_dict(self) -> Any:
        """Leave room for the echo of ``^C``, which would begin another line; keep bars readable on a wide terminal."""
        found = super().format_dict
        if found["ncols"]:
            found["ncols"] = min(max(1, found["ncols"] - _ROOM), _WIDEST)
        return found


_Bar.set_lock(threading.RLock())  # that of tqdm is for several processes, and loads multiprocessing


def _title(event: StepProgress) -> str:
    """Return what stands before a bar: the step, of a training with its loss and learning rate."""
    if not isinstance(event, TrainingProgress):
        return printable(event.step)
    held_out = "" if event.validation_loss is None else f", {event.validation_loss:.4g} held out"
    return f"train, loss {event.loss:.4g}{held_out}, rate {event.rate:.2g}"


class ProgressBars:
    """The bars of one terminal; ``stream`` passes control characters on to it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._bars: dict[str, _Bar] = {}

    def show(self, event: StepProgress) -> None:
        """Draw how far a step is; its bar goes when it is complete."""
        bar = self._bars.get(event.step)
        if bar is not None and isinstance(event, TrainingProgress):
            bar.set_description_str(_title(event), refresh=False)
        if event.done >= event.total:
            self.close(event.step)
        elif bar is None:
            self._bars[event.step] = self._open(event)
        elif event.done < bar.n:  # begun anew: what was done before is no speed
            bar.reset(event.total)
            bar.n = bar.initial = bar.last_print_n = event.done
            bar.refresh()
        else:
            bar.total = event.total
            bar.update(event.done - bar.n)

    def _open(self, event: StepProgress) -> _Bar:
        is_bytes = event.unit == "bytes"
        return _Bar(
            desc=_title(event),
            total=event.total,
            initial=event.done,
            unit="B" if is_bytes else f" {printable(event.unit)}",
            unit_scale=is_bytes,
            unit_divisor=1024,
            file=self._stream,
            leave=False,
            dynamic_ncols=True,
            mininterval=_EVERY_S,
            miniters=1,
            bar_format=_FORMAT,
        )

    def print(self, line: str, to: IO[str]) -> None:
        """Print a line above the bars; ``to`` is a stream of the same terminal."""
        with _Bar.external_write_mode(file=self._stream):
            to.write(f"{line}\n")
            to.flush()

    def close(self, step: str) -> None:
        """Remove the bar of a step, if it has one; those below it move up."""
        if (bar := self._bars.pop(step, None)) is None:
            return
        others = list(self._bars.values())
        for other in others:
            other.clear()
        bar.close()
        for position, other in enumerate(others):
            other.pos = position
            other.refresh()

    def close_all(self) -> None:
        """Remove every bar; the next line begins on an empty one."""
        for step in list(self._bars):
            self.close(step)
        self._stream.write(_ERASE)  # a bar that was drawn and then interrupted is not among them
        self._stream.flush()
