"""What an option is: name, type, default, help, group, flags, environment variable, and what reads it.

The options themselves are in ``model_and_build_options`` and ``option_definitions``, each defined once. The command
line is made from them (``cli.shared_options``), docs/options.md too. Tests check ``options.RunnerKeywords`` and the
fields of ``ServerOptions`` against them. Standard library only, no I/O: they are read at every start.
"""

from __future__ import annotations

from typing import Literal, get_args

from llama_runner.core.immutable_values import Value

Group = Literal[
    "model",
    "Hub",
    "conversion",
    "quantization",
    "programs",
    "build",
    "pipeline",
    "server",
    "access",
    "life cycle",
    "output",
]
"""The heading that an option stands under in ``--help``, and its section in docs/options.md."""

Reader = Literal["artifacts", "server", "supervisor", "command"]
"""What reads an option: ``artifacts``: the keywords of ``Runner.prepare``; ``server``: ``ServerOptions``;
``supervisor``: who looks after a running server; ``command``: the command line itself."""

Kind = Literal[
    "text",
    "flag",
    "choice",
    "integer",
    "number",
    "size",
    "file",
    "directory",
    "list",
    "integer or word",
    "duration",
    "share",
]
"""What values an option has. ``duration`` and ``share`` (bytes, or a part of all memory) are only in the configuration
file."""

GROUPS: tuple[Group, ...] = get_args(Group)


class Option(Value):
    """One option."""

    name: str
    """The keyword in Python, and the attribute of the value that reads it."""
    flags: tuple[str, ...]
    group: Group
    help: str
    """What it does: a sentence without its default, which is added to it."""
    kind: Kind = "text"
    default: object = None
    default_text: str | None = None
    """The default in words, where the value alone does not say it. ``""``: the help says it already."""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    """The values of a choice, or the words of ``integer or word``."""
    least: float | None = None
    most: float | None = None
    environment: str | None = None
    """The environment variable that is read where the option is not given."""
    parameter: str | None = None
    """The name among the arguments of a command, where it is not ``name``."""
    reader: Reader = "artifacts"
    common: bool = False
    """Whether it is among those that most people need, which ``--help`` shows first."""
    secret: bool = False
    """Whether no message shows its value."""
    old_flags: tuple[str, ...] = ()
    """Spellings of earlier versions: accepted, with one line of warning."""

    @property
    def flag(self) -> str:
        """The long flag that messages name."""
        return next(flag for flag in reversed(self.flags) if flag.startswith("--")).partition("/")[0]

    @property
    def argument(self) -> str:
        """The name among the arguments of a command."""
        return self.parameter or self.name

    @property
    def is_negated(self) -> bool:
        """Whether the flag says that the value is False: ``--no-mmproj``."""
        return self.kind == "flag" and self.default is True

    @property
    def help_text(self) -> str:
        """The help with the default and the environment variable at its end."""
        told = []
        if self.default_text != "" and (self.default_text or self.default not in (None, False, True, "", ())):
            default = f"{self.default:g}" if isinstance(self.default, float) else self.default
            told.append(f"default: {self.default_text or default}")
        if self.environment is not None:
            told.append(f"variable: {self.environment}")
        return f"{self.help.removesuffix('.')} ({'; '.join(told)})." if told else self.help
