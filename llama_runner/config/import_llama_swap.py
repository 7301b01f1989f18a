"""Imports the YAML file of llama-swap."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llama_runner.config.import_command import find_call, shown_command, take_call, take_variable, volumes_of
from llama_runner.config.import_report import ImportFailed
from llama_runner.config.import_yaml import YamlNode, read_yaml
from llama_runner.config.known_keys import SAMPLING
from llama_runner.config.paths_of_imported_file import variable
from llama_runner.config.split_command_line import UnclosedQuote, split_command

if TYPE_CHECKING:
    from llama_runner.config.import_options import ModelDraft
    from llama_runner.config.import_report import Kind
    from llama_runner.config.imported_configuration import Context

NAME = "llama-swap"
_MACRO = re.compile(r"\$\{([A-Za-z0-9_-]{1,64}|env\.[A-Za-z_]\w{0,127})\}")
_THEIRS = frozenset(("PORT", "PID"))
"""Macros whose value only llama-swap knows."""
_LONGEST = 1 << 16
"""Characters of a command with its macros."""
_HIDDEN_NAME = re.compile(r"(?i)api_?key|token|secret|passw|header")

_OF_FILE = {
    **dict.fromkeys(("logLevel", "logTimeFormat", "logToStdout", "metricsMaxInMemory", "captureBuffer"), "not taken"),
    **dict.fromkeys(("startPort", "unloadTimeout", "$schema"), "not needed"),
}
_OF_MODEL: dict[str, tuple[Kind, str]] = {
    "checkEndpoint": ("not needed", "readiness is known for llama-server"),
    "cmdStop": ("not needed", "llama-runner stops its servers itself"),
    "useModelName": ("not needed", "the server knows every name of the model"),
    "proxy": ("not needed", "the address of the server is known"),
    "name": ("not taken", "there are no display names"),
    "description": ("not taken", "there are no descriptions"),
    "metadata": ("not taken", "there is no metadata"),
    "concurrencyLimit": ("not taken", "`queue` of [gateway] limits the requests that wait for a model"),
    "sendLoadingState": ("not taken", "there is no counterpart"),
    "timeouts": ("not taken", "there is no counterpart"),
    "unloadTimeout": ("not needed", "a server is given time to stop"),
}


def looks_like(node: YamlNode) -> bool:
    """Return whether a YAML document is one of llama-swap: models with commands."""
    models = node.get("models")
    return models is not None and any(model.get("cmd") or model.get("proxy") for _, model in models.items())


def import_llama_swap(text: str, context: Context) -> None:
    """Import a file."""
    _File(read_yaml(text, NAME), context).take()


class _File:
    def __init__(self, node: YamlNode, context: Context) -> None:
        self._node, self._context, self._report = node, context, context.report
        models = node.get("models")
        if models is None or not isinstance(models.value, dict):
            raise ImportFailed(NAME, "there is no table `models`")
        self._models = models
        self._names: dict[str, str] = {}
        """The names there, and aliases, with the names here."""
        self._known: dict[str, YamlNode] = {}
        """The macros of the model at hand, and those of all."""
        self._macros = dict((node.get("macros") or YamlNode({}, 1)).items())

    def take(self) -> None:
        for key, node in self._node.items():
            if (read := getattr(self, f"_take_{key}", None)) is not None and key not in ("models", "hooks", "groups"):
                read(node)
            elif key not in ("models", "hooks", "groups", "macros", "routing"):
                self._report.add(node.line, node.shown(key), *_of_file(key))
        for key, node in self._macros.items():
            self._report.add(node.line, node.shown(key), "not needed", "", "a macro, put in where it is used")
        for name, node in self._models.items():
            self._take_model(name, node)
        routing = self._node.get("routing")
        settings = ((routing and routing.get("router")) or YamlNode({}, 1)).get("settings")
        for place in (self._node, settings or YamlNode({}, 1)):
            if groups := place.get("groups"):
                self._take_groups(groups)
        if routing and not (settings and settings.get("groups")):
            self._report.add(routing.line, "routing: …", "not needed", "", "the gateway decides by memory")
        if hooks := self._node.get("hooks"):
            self._take_hooks(hooks)

    # What stands beside the models

    def _take_apiKeys(self, node: YamlNode) -> None:  # noqa: N802 - the name there
        instead = 'write the keys into a file, and api_key_file = "FILE" into [gateway]'
        self._report.secret(node.line, "apiKeys:", [each.text for each in node.elements()], instead)

    def _take_peers(self, node: YamlNode) -> None:
        for name, peer in node.items():
            secrets = [each.text for key, each in peer.items() if _HIDDEN_NAME.search(key)]
            if secrets:
                self._report.secret(peer.line, f"peers: {name}", secrets, "other servers are not asked")
            self._report.add(peer.line, f"peers: {name}", "not taken", "", "models of other servers are not declared")

    def _take_globalTTL(self, node: YamlNode) -> None:  # noqa: N802 - as above
        if isinstance(node.value, int) and node.value > 0:
            self._context.default(node.line, node.shown("globalTTL"), "ttl", f"{node.value}s")
        else:
            self._report.add(node.line, node.shown("globalTTL"), "not needed", "", "models stay loaded by default")

    def _take_healthCheckTimeout(self, node: YamlNode) -> None:  # noqa: N802 - as above
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool) and node.value > 0:
            note = "here it is the time without any output of a server that loads"
            self._context.default(node.line, node.shown("healthCheckTimeout"), "load_timeout", node.value, note)
        else:
            self._report.add(node.line, node.shown("healthCheckTimeout"), "not taken", "", "expected seconds")

    def _take_matrix(self, node: YamlNode) -> None:
        note = "the gateway decides by memory which models run together; pin = true keeps one loaded"
        self._report.add(node.line, "matrix: …", "not needed", "", note)

    def _take_groups(self, node: YamlNode) -> None:
        for name, group in node.items():
            persistent = group.get("persistent")
            if persistent is not None and persistent.value is True:
                members = group.get("members")
                for member in members.elements() if members else ():
                    self._set(member, f"groups: {name}: persistent", "pin")
            else:
                note = "the gateway decides by memory which models run together"
                self._report.add(group.line, f"groups: {name}", "not needed", "", note)

    def _take_hooks(self, node: YamlNode) -> None:
        preload = (node.get("on_startup") or YamlNode({}, 1)).get("preload")
        for each in preload.elements() if preload else ():
            self._set(each, f"preload: {each.text}", "preload")

    def _set(self, node: YamlNode, text: str, key: str) -> None:
        """Set a key of the model that a list names."""
        from llama_runner.config.imported_model import assignment  # noqa: PLC0415 - beside its class

        name = self._names.get(node.text)
        if name is None:
            self._report.add(node.line, text, "not taken", "", f"there is no model {node.text}")
            return
        self._context.tables["models"][name][key] = True
        self._report.add(node.line, text, "taken", assignment(("models", name, key), value=True))

    # A model

    def _take_model(self, name: str, node: YamlNode) -> None:
        command = node.get("cmd")
        self._known = macros = {**self._macros, **dict((node.get("macros") or YamlNode({}, 1)).items())}
        if command is None:
            self._report.add(node.line, name, "not taken", "", "the model is left out: there is no cmd")
            return
        lines = command.lines or tuple((command.line, each) for each in command.text.splitlines())
        try:
            words = split_command([(number, _expanded(line, macros, name, command.line)) for number, line in lines])
        except (UnclosedQuote, _UnknownMacro) as error:
            self._report.add(error.line, name, "not taken", "", f"the model is left out: {error}")
            return
        call = find_call(words)
        if not words:
            self._report.add(command.line, name, "not taken", "", "the model is left out: cmd is no text")
            return
        if call is None:
            why = f"the model {name} is left out: its command starts no llama-server"
            self._report.add(command.line, shown_command(words), "not taken", "", why)
            return
        draft = self._context.draft("gateway", volumes_of(call))
        take_call(draft, call, self._context)
        draft.aliases.clear()  # the name that the server has for llama-swap alone
        for key, each in node.items():
            if (read := getattr(self, f"_model_{key}", None)) is not None:
                read(draft, name, each)
            elif key not in ("cmd", "macros"):
                kind, note = _OF_MODEL.get(key, ("not taken", "there is no counterpart"))
                draft.skip(each.line, each.shown(key), note, kind)
        aliases = list(draft.aliases)
        if (found := self._context.finish(draft, name, line=node.line)) is not None:
            self._names |= dict.fromkeys((name, *aliases), found)

    def _model_aliases(self, draft: ModelDraft, _name: str, node: YamlNode) -> None:
        for each in node.elements():
            alias = each.get("id") or each
            if not alias.text:
                draft.skip(each.line, "aliases: …", "expected text")
                continue
            unlisted = (each.get("unlisted") or YamlNode(None, 1)).value is True
            draft.alias(each.line, f"alias {alias.text}", alias.text, "aliases are listed here" if unlisted else "")

    def _model_ttl(self, draft: ModelDraft, _name: str, node: YamlNode) -> None:
        if not isinstance(node.value, int) or isinstance(node.value, bool):
            draft.skip(node.line, node.shown("ttl"), "expected seconds")
        elif node.value < 0:
            draft.skip(node.line, node.shown("ttl"), "that of [defaults]", "not needed")
        else:
            draft.put(node.line, node.shown("ttl"), ("ttl",), f"{node.value}s" if node.value else 0)

    def _model_unlisted(self, draft: ModelDraft, _name: str, node: YamlNode) -> None:
        if node.value is True:
            draft.put(node.line, "unlisted: true", ("hidden",), value=True)

    def _model_env(self, draft: ModelDraft, _name: str, node: YamlNode) -> None:
        for each in node.elements():
            name, _, value = each.text.partition("=")
            take_variable(draft, each.line, name, _environment(value), self._context)

    def _model_filters(self, draft: ModelDraft, name: str, node: YamlNode) -> None:
        for key, each in node.items():
            if key in ("setParams", "set_params"):
                self._take_parameters(draft, (), each)
            elif key == "setParamsByID":
                for model, parameters in each.items():
                    self._take_variant(draft, name, model, parameters)
            else:
                draft.skip(each.line, each.shown(key), "a request overrides the defaults of a model")

    def _take_variant(self, draft: ModelDraft, name: str, other: str, node: YamlNode) -> None:
        try:
            called = _expanded(other, self._known, name, node.line)
        except _UnknownMacro as error:
            draft.skip(node.line, f"setParamsByID: {other}", str(error))
            return
        if called == name:
            self._take_parameters(draft, (), node)
            return
        short = called.removeprefix(f"{name}:")
        if short == called:
            draft.put(node.line, f"setParamsByID: {called}", ("variants", short, "aliases"), [called])
        self._take_parameters(draft, ("variants", short), node)

    def _take_parameters(self, draft: ModelDraft, above: tuple[str, ...], node: YamlNode) -> None:
        for key, each in node.items():
            text = each.shown(key)
            named = _MACRO.fullmatch(each.text)
            value = (self._known.get(named[1], each) if named else each).plain()
            if key in SAMPLING and isinstance(value, (int, float)) and not isinstance(value, bool):
                note = "a default here: what a client asks for counts"
                draft.put(each.line, text, (*above, "sampling", key), value, note)
            elif key == "chat_template_kwargs" and isinstance(value, dict):
                for name, argument in value.items():
                    draft.put(each.line, f"{key}: {name}", (*above, "template", name), argument)
            else:
                draft.skip(each.line, text, "requests are not changed in this way")


def _of_file(key: str) -> tuple[Kind, str, str]:
    kind: Any = _OF_FILE.get(key, "not taken")
    return kind, "", "llama-runner does this itself" if kind == "not needed" else "there is no counterpart"


class _UnknownMacro(ValueError):
    def __init__(self, name: str, line: int) -> None:
        self.line = line
        super().__init__(f"there is no macro {name}")


def _expanded(text: str, macros: dict[str, YamlNode], model: str, line: int) -> str:
    """Return a text with its macros put in; variables of the environment are marked, not read."""
    for _ in range(16):
        names = [name for name in _MACRO.findall(text) if name not in _THEIRS]
        if not names:
            return text
        values = {name: _value(name, macros, model, line) for name in set(names)}
        if len(text) + sum(len(values[name]) for name in names) > _LONGEST:
            raise ImportFailed(NAME, f"a command with its macros is longer than {_LONGEST} characters", line)
        text = _MACRO.sub(lambda match: values.get(match[1], match[0]), text)  # noqa: B023 - used at once
    raise ImportFailed(NAME, "macros contain each other", line)


def _value(name: str, macros: dict[str, YamlNode], model: str, line: int) -> str:
    if name.startswith("env."):
        return variable(name[4:])
    if name == "MODEL_ID":
        return model
    if name not in macros:
        raise _UnknownMacro(name, line)
    lines = re.sub(r"\\[ \t]*\n", " ", macros[name].text).splitlines()
    return " ".join(each for each in lines if not each.lstrip().startswith("#"))


def _environment(text: str) -> str:
    return _MACRO.sub(lambda match: variable(match[1][4:]) if match[1].startswith("env.") else match[0], text)
