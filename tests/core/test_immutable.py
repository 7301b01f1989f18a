"""``Value`` keeps the promises of a frozen dataclass."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from llama_runner.core.immutable_values import Value, field


class Point(Value):
    kind: ClassVar[str] = "point"
    x: int
    y: int = 2
    tags: dict[str, int] = field(default_factory=dict)


class Deep(Point):
    z: int = 3


class Thing(Value, eq=False):
    name: str


def test_fields_come_in_their_order_by_name_or_by_default() -> None:
    assert Point(1) == Point(x=1, y=2) == Point(1, 2, {})
    assert Deep(1, 2, {}, 4).z == 4
    assert repr(Deep(1)) == "Deep(x=1, y=2, tags={}, z=3)"


def test_values_of_another_class_are_never_equal() -> None:
    class Other(Value):
        x: int
        y: int = 2
        tags: dict[str, int] = field(default_factory=dict)

    assert Point(1) != Other(1)
    assert Point(1) != Point(2)
    assert len({Thing("a"), Thing("a")}) == 2, "compared by identity"
    thing = Thing("a")
    assert thing == thing  # noqa: PLR0124


def test_a_default_that_can_change_is_made_anew() -> None:
    assert Point(1).tags is not Point(1).tags


@pytest.mark.parametrize(
    ("positional", "named", "text"),
    [
        ((), {}, "x is missing"),
        ((1, 2, {}, 4), {}, "takes 3 fields, 4 were given"),
        ((1,), {"x": 1}, "x was given twice"),
        ((1,), {"w": 1}, "has no field w"),
    ],
)
def test_wrong_fields_are_errors(positional: tuple[Any, ...], named: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        Point(*positional, **named)


def test_a_value_never_changes() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="x cannot be changed"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="x cannot be removed"):
        del point.x
    assert point.replace(x=5) == Point(5)
    assert point == Point(1)


def test_values_with_hashable_fields_are_keys() -> None:
    class Key(Value):
        name: str

    assert {Key("a"): 1}[Key("a")] == 1
    match Key("b"):
        case Key(name):
            assert name == "b"
