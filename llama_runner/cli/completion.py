"""Values that a shell completes: files, models, servers, builds, profiles, quantization types, declared names, keys.

``register`` replaces click's scripts for bash and fish. That for bash completes names with a colon, such as
``demo:q4_k_m``: bash takes a colon for the end of a word. That for fish completes lists with commas. This module is
loaded only when a shell asks.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from click.shell_completion import BashComplete, CompletionItem, FishComplete, add_completion_class

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.request.lifecycle_options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    from llama_runner.api_management import Management
    from llama_runner.config.config import Config

_FILES = frozenset({"archive", "lora", "model", "output", "path", "patches", "schema", "source", "binaries"})
"""Parameters that take the path of a file or a directory, beside the options of kind ``file``."""
_KINDS = {option.argument: option.kind for option in OPTIONS}
_CHOICES = {option.argument: option.choices for option in OPTIONS}


def values(parameter: click.Parameter, context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return what may stand for a parameter, given its beginning."""
    name = parameter.name or ""
    before, comma, last = incomplete.rpartition(",") if name == "quantization" else ("", "", incomplete)
    words: Iterable[str] = ()
    with suppress(LlamaRunnerError, OSError, ValueError):
        words = _WORDS[name](context) if name in _WORDS else _CHOICES.get(name, ())
    found = [
        CompletionItem(before + comma + word)
        for word in words
        if word.lower().startswith(last.lower()) and word.isprintable()
    ]
    kind = _KINDS.get(name)
    if kind == "directory":
        found.append(CompletionItem(incomplete, type="dir"))
    elif not found and (kind == "file" or name in _FILES):
        found.append(CompletionItem(incomplete, type="file"))
    return found


def _root(context: click.Context) -> Management:
    from llama_runner.api_management import Management  # noqa: PLC0415 - not for options

    return Management(context.params.get("root"))


def _servers(context: click.Context) -> list[str]:
    from llama_runner.serving import server_registry  # noqa: PLC0415

    directory = _root(context).servers
    found = [*server_registry.running(directory), *server_registry.failed(directory)]
    if context.command.name in ("restart", "logs"):
        found += server_registry.ended(directory)
    return list(dict.fromkeys(str(about.get("alias")) for about in found))


def _builds(context: click.Context) -> list[str]:
    return [build.name for build in _root(context).bins.builds()]


def _names(context: click.Context) -> list[str]:
    return _builds(context) if context.command.name == "remove" else _declared(context)


def _config(context: click.Context) -> Config | None:
    from llama_runner.cli.declared_model_arguments import config_path  # noqa: PLC0415 - not for options
    from llama_runner.config.config import Config  # noqa: PLC0415

    path = config_path(context.params | {"root": context.params.get("root")})
    return None if path is None else Config.load(path)


def _declared(context: click.Context) -> list[str]:
    from llama_runner.config.config import names_of  # noqa: PLC0415 - as above

    config = _config(context)
    return [] if config is None else [name for model in config.models.values() for name in names_of(model)]


def _presets(context: click.Context) -> list[str]:
    from llama_runner.config.presets import PRESETS  # noqa: PLC0415 - as above

    with suppress(LlamaRunnerError):
        if (config := _config(context)) is not None:
            return list(config.presets)
    return list(PRESETS)


def _keys(context: click.Context) -> list[str]:
    from llama_runner.config.errors import dotted  # noqa: PLC0415 - as above
    from llama_runner.config.known_keys import SHARED_OPTIONS  # noqa: PLC0415
    from llama_runner.config.toml_statements import lines_of  # noqa: PLC0415

    config = _config(context)
    texts = [] if config is None else config.texts.values()
    there = [dotted(keys) for text in texts for keys in lines_of(text)]
    return there if context.command.name != "set" else [*there, *(f"defaults.{name}" for name in SHARED_OPTIONS)]


def _builds_to_use(context: click.Context) -> list[str]:
    return [*_builds(context), *(["auto"] if context.command.name == "use" else [])]


def _models(context: click.Context) -> list[str]:
    found = _root(context).models.list()
    return [*{model.name for model in found}, *(f"{each.name}:{q}" for each in found for q in each.quantizations)]


def _programs(context: click.Context) -> list[str]:
    return ["auto", "build", "prebuilt", "system", *_builds(context)]


def _profiles(context: click.Context) -> list[str]:
    from llama_runner.serving import tuned_profiles  # noqa: PLC0415
    from llama_runner.store import layout  # noqa: PLC0415

    return tuned_profiles.names(layout.profiles(_root(context).root))


def _quantizations(_context: click.Context) -> list[str]:
    from llama_runner.sources.quantization_types import FLOAT, QUANTIZED  # noqa: PLC0415

    return [*QUANTIZED, *FLOAT]


def _backends(_context: click.Context) -> list[str]:
    from llama_runner.llama_cpp.backend_build_options import BACKENDS  # noqa: PLC0415

    return ["auto", *BACKENDS]


_WORDS: dict[str, Callable[[click.Context], list[str]]] = {
    "server": _servers,
    "name": _builds_to_use,
    "names": _names,
    "model": _declared,
    "key": _keys,
    "preset": _presets,
    "model_name": _models,
    "model_names": _models,
    "binaries": _programs,
    "profile": _profiles,
    "quantization": _quantizations,
    "output_tensor_type": _quantizations,
    "token_embedding_type": _quantizations,
    "device": _backends,
}

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line=${COMP_LINE:0:$COMP_POINT} prefix= completion kind value
    local words="${COMP_WORDS[*]}" count=$COMP_CWORD
    if [[ ${line##*[[:space:]]} == *:* && $COMP_WORDBREAKS == *:* ]]; then
        local -a split
        IFS=$' \\t' read -ra split <<< "$line"
        words="${split[*]}" count=$((${#split[@]} - 1)) prefix=${line##*[[:space:]]}
        prefix=${prefix%%"${prefix##*:}"}
    fi
    for completion in $(env COMP_WORDS="$words" COMP_CWORD="$count" %(complete_var)s=bash_complete "$1"); do
        IFS=',' read -r kind value <<< "$completion"
        case $kind in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("${value#"$prefix"}") ;;
        esac
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    source_template = _BASH


class _Fish(FishComplete):
    source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')


def register() -> None:
    """Use our scripts for bash and fish."""
    add_completion_class(_Bash)
    add_completion_class(_Fish)
