"""Draws the loss of a training as SVG. The same numbers give the same bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from llama_runner.core.printable_text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 40, 45
_MOST_POINTS, _MOST_DOTS = 600, 60
_STYLE = 'font-family="sans-serif" font-size="12" fill="#333"'
_STEPS = (1, 2, 5, 10)


def loss_plot(title: str, losses: Sequence[float], validation: Sequence[tuple[int, float]]) -> str:
    """Return a plot of the loss by step, and of the validation loss as ``(step, loss)``."""
    highest = max([*losses, *(loss for _, loss in validation)], default=0.0) or 1.0
    step = _round_step(highest / 4)
    top = step * math.ceil(highest / step)
    count = max(len(losses), 1)

    def x(at: float) -> float:
        return _LEFT + (at - 1) / max(count - 1, 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(loss: float) -> float:
        return _HEIGHT - _BOTTOM - loss / top * (_HEIGHT - _TOP - _BOTTOM)

    every = math.ceil(count / _MOST_POINTS)
    groups = [losses[at : at + every] for at in range(0, len(losses), every)]
    points = [(at * every + (len(group) + 1) / 2, sum(group) / len(group)) for at, group in enumerate(groups)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_STYLE}>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(printable(title))}</text>',
    ]
    for number in range(round(top / step) + 1):
        at = y(number * step)
        lines.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{number * step:.4g}</text>')
    lines += [
        f'<text x="{x(step_at):.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{step_at}</text>'
        for step_at in sorted({1, (count + 1) // 2, count})
    ]
    lines.append(f'<text x="{_WIDTH / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">step</text>')
    lines.append(_line([(x(at), y(loss)) for at, loss in points], "#1f77b4", "loss", 0))
    if validation:
        lines.append(_line([(x(at), y(loss)) for at, loss in validation], "#d62728", "validation loss", 1))
    return "\n".join([*lines, "</svg>", ""])


def _line(points: Sequence[tuple[float, float]], colour: str, name: str, row: int) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dotted = points if len(points) <= _MOST_DOTS else ()
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in dotted)
    label = f'<text x="{_WIDTH - _RIGHT}" y="{18 + 15 * row}" text-anchor="end" fill="{colour}">{name}</text>'
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>{dots}{label}'


def _round_step(wanted: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(factor * power for factor in _STEPS if factor * power >= wanted * (1 - 1e-9))
