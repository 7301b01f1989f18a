"""Names keywords of Python in errors, where their text names flags of the command line. Loaded only for an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.option_definition import Option
from llama_runner.request.lifecycle_options import STORE
from llama_runner.request.model_and_build_options import ARTIFACTS
from llama_runner.serving.llama_server.option_definitions import SERVER

if TYPE_CHECKING:
    from llama_runner.core.errors import LlamaRunnerError

_OUTPUT = Option("output", ("--output",), "output", "The argument of ``Runner.make``.", kind="file")
_BY_FLAG = {
    flag.partition("/")[0]: option
    for option in (*ARTIFACTS, *SERVER, *STORE, _OUTPUT)
    for flag in (*option.flags, *option.old_flags)
}
_COMMAND = r"`[^`]*`|llama-runner .*|^run \S+ --.*"
"""Commands, which stay as they are typed in a shell."""
_FLAG = r"(?<!-- )(?<![\w-])(--[a-z][a-z-]*|-q)(?:[ =]([^\s,;()]+))?"
_WORDS = frozenset(("auto", "build", "prebuilt", "system", "environment"))
"""Values that could be words of the sentence."""


def name_keywords(error: LlamaRunnerError) -> None:
    """Replace flags in the hint of an error by keywords, and in the message of a ``UsageError`` about ours too."""
    if isinstance(error, UsageError) and error.args and not re.search(r"llama-server|after --", str(error)):
        first, *rest = str(error.args[0]).split("\n")
        error.args = ("\n".join([keywords_in(first), *rest]), *error.args[1:])
    if error.hint is None:
        return
    old, error.hint = error.hint, keywords_in(error.hint)
    notes = getattr(error, "__notes__", [])
    notes[:] = [f"hint: {error.hint}" if note == f"hint: {old}" else note for note in notes]


def keywords_in(text: str) -> str:
    """Return a text with keywords of ``Runner`` and fields of ``ServerOptions`` instead of their flags."""
    return re.sub(f"{_COMMAND}|{_FLAG}", _keyword, text)


def _keyword(match: re.Match[str]) -> str:
    flag, word = match[1], match[2]
    option = _BY_FLAG.get(flag) if flag else None
    if option is None:
        return match[0]
    name = "force" if option.name == "force_step" else option.name
    if option.kind == "flag":
        text, rest = f"{name}={not option.default}", match[0][len(flag) :]
    elif word and _is_value(option, word):
        text, rest = f"{name}={_literal(option, word)}", ""
    else:
        text, rest = name if option.reader != "server" else f"{name}=…", match[0][len(flag) :]
    return (f"ServerOptions({text})" if option.reader == "server" else text) + rest


def _is_value(option: Option, word: str) -> bool:
    return word in _WORDS or word in option.choices or re.search(r"[A-Z0-9_=/:.+…-]", word) is not None


def _literal(option: Option, word: str) -> str:
    literal = word if re.fullmatch(r"[A-Z]+|[0-9]+|…", word) else repr(word)
    return f"[{literal}]" if option.kind == "list" else literal
