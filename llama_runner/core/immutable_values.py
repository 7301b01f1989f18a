"""Immutable values with named fields, like frozen dataclasses but faster to define.

``dataclass`` generates and compiles several methods for every class, which takes 0.4 ms at each start. The warm path
defines fifty classes and takes 70 ms in all, so here the methods are inherited. For type checkers and readers a
``Value`` is a frozen dataclass: fields are annotations, defaults are assignments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_options: object) -> Any:  # noqa: ANN401
        """Do nothing at run time; ``typing`` has it from Python 3.11 on."""
        return lambda cls: cls


_MISSING: Any = object()


class Field:
    """A field of a ``Value`` class: its default, the factory of its default, and its role."""

    def __init__(self, default: Any, factory: Callable[[], Any] | None, role: str | None) -> None:  # noqa: ANN401
        self.default, self.factory, self.role = default, factory, role


def field(
    *,
    default: Any = _MISSING,  # noqa: ANN401 - as for dataclasses.field
    default_factory: Callable[[], Any] | None = None,
    role: str | None = None,
) -> Any:  # noqa: ANN401
    """Declare a field with a default, a default factory or a role. ``repr`` hides the value of the role ``secret``."""
    return Field(default, default_factory, role)


class _Signature:
    """``__signature__`` of a class: its fields. ``inspect`` is loaded when somebody asks."""

    def __get__(self, instance: object, owner: type[Value]) -> Any:  # noqa: ANN401 - inspect.Signature
        import inspect  # noqa: PLC0415 - slow

        kind, missing = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
        shown = []
        for name, each in owner.fields.items():
            default = each.factory() if each.factory else each.default
            default = missing if default is _MISSING else default
            annotation = next(found[name] for base in owner.__mro__ if name in (found := inspect.get_annotations(base)))
            shown.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
        return inspect.Signature(shown)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Value:
    """Base class of immutable values: equal by class and fields, hashable if the fields are.

    Instances of ``class Name(Value, eq=False)`` compare by identity instead.
    """

    fields: ClassVar[dict[str, Field]] = {}
    __signature__: ClassVar[Any] = _Signature()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, eq: bool = True) -> None:
        super().__init_subclass__()
        fields = dict(cls.fields)
        for name, annotation in cls.__dict__.get("__annotations__", {}).items():  # noqa: RUF063 - inspect is slow
            if str(annotation).startswith("ClassVar"):
                continue
            default = cls.__dict__.get(name, _MISSING)
            if isinstance(default, Field):
                fields[name] = default
                delattr(cls, name)
            else:
                fields[name] = Field(default, None, None)
        cls.fields = fields
        cls.__match_args__ = tuple(fields)  # type: ignore[misc]
        if not eq:
            cls.__eq__, cls.__hash__ = object.__eq__, object.__hash__  # type: ignore[method-assign]

    def __init__(self, *positional: Any, **named: Any) -> None:  # noqa: ANN401
        """Set the fields by position or name, like a dataclass."""
        own = self.__dict__
        if not positional and named.keys() == self.fields.keys():  # as below, for thousands of records
            own.update(named)
            self.__post_init__()
            return
        if len(positional) > len(self.fields):
            raise TypeError(f"{type(self).__name__} takes {len(self.fields)} fields, {len(positional)} were given")
        own.update(zip(self.fields, positional, strict=False))
        for name, declared in self.fields.items():
            if name in own:
                if name in named:
                    raise TypeError(f"{type(self).__name__}: {name} was given twice")
            elif name in named:
                own[name] = named[name]
            elif declared.factory is not None:
                own[name] = declared.factory()
            elif declared.default is not _MISSING:
                own[name] = declared.default
            else:
                raise TypeError(f"{type(self).__name__}: {name} is missing")
        if unknown := named.keys() - self.fields.keys():
            raise self._no_field_error(min(unknown))
        self.__post_init__()

    def _no_field_error(self, name: str) -> TypeError:
        """Return the error for a name that is no field."""
        return TypeError(f"{type(self).__name__} has no field {name}")

    def __post_init__(self) -> None:
        """Check or convert fields, as in a dataclass; only here may ``__dict__`` be changed."""

    def replace(self, **changed: Any) -> Self:  # noqa: ANN401
        """Return a copy with some fields changed."""
        return type(self)(**{**self.__dict__, **changed})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is a value: {name} cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is a value: {name} cannot be removed")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        shown = [
            f"{name}={'…' if self.fields[name].role == 'secret' and value is not None else repr(value)}"
            for name, value in self.__dict__.items()
        ]
        return f"{type(self).__name__}({', '.join(shown)})"
