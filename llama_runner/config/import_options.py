"""Turns options of llama-server into the table of a model, for command lines, variables and presets alike."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.config.imported_model import KEY_FILE, ModelTable, holds_secret
from llama_runner.config.known_keys import MODEL_OPTIONS, SAMPLING_FLAGS
from llama_runner.config.paths_of_imported_file import PathNotTaken
from llama_runner.core.csv_option_values import format_row, parse_row
from llama_runner.serving.llama_server.absolute_option_paths import takes_path

if TYPE_CHECKING:
    from llama_runner.config.import_report import Report
    from llama_runner.config.paths_of_imported_file import Paths
    from llama_runner.config.server_flags import ServerFlag, ServerFlags
    from llama_runner.config.split_command_line import Word

HUB_TOKEN = "use the environment variable HF_TOKEN"  # noqa: S105 - where it goes
_HUB_URL = re.compile(r"https?://(?:huggingface\.co|hf\.co)/([^/]+/[^/]+)/(?:resolve|blob)/([^/?#]+)/([^?#]+)(?:\?.*)?")
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?")
_JOINED = frozenset(("override-tensor", "override-kv", "spec-draft-override-tensor", "lora-scaled", "control-vector"))
"""Options that take a list and may be repeated."""
_REPEATED = frozenset(("logit-bias", "reverse-prompt", "dry-sequence-breaker"))
"""Options that take one value and may be repeated."""
_TRUE, _FALSE = ("on", "enabled", "true", "1"), ("off", "disabled", "false", "0")
_OURS = frozenset(flag for option in MODEL_OPTIONS.values() if option.kind != "flag" for flag in option.flags)
"""Flags of ours; an option of llama-server of the same name, such as --device, is written in another spelling."""
_INFORMATION = frozenset(("help", "version", "cache-list", "list-devices", "completion-bash"))
_ROUTER = frozenset(("models-dir", "models-preset", "models-max", "models-autoload"))
_SECRET_NAME = re.compile(r"(?i)api[-_]?key$|token$|secret|passw")


Listens = Literal["here", "gateway", "container"]
"""Where clients connect: to the server itself, to the gateway in front of it, to a published port of its container."""
_NOT_HERE = {
    "gateway": "the gateway alone listens to clients",
    "container": "inside the container; the published port counts",
}


class ModelDraft(ModelTable):
    """The table of one model while options of llama-server go into it."""

    def __init__(self, report: Report, flags: ServerFlags, paths: Paths, *, listens: Listens) -> None:
        super().__init__(report)
        self.port = 8080
        """The port that the server is told to listen on."""
        self._flags, self._paths, self._listens = flags, paths, listens

    def take_words(self, words: list[Word]) -> None:
        """Take the arguments of a llama-server."""
        left = deque(words)
        while left:
            word = left.popleft()
            name, equals, value = word.text.partition("=")
            if not word.text.startswith("-"):
                self.skip(word.line, word.text, "not an option of llama-server")
                continue
            found = self._flags.find(name if equals else word.text)
            if found is None:
                values = [value] if equals else [left.popleft().text] if left and _is_value(left[0].text) else []
                self.take_unknown(word.line, name if equals else word.text, values)
                continue
            count = 0 if equals else self._flags.takes(name) or 0
            if found[0].kind == "switch" and not (
                left and left[0].text in ("on", "off", "auto", *_TRUE, *_FALSE, "-1")
            ):
                count = 0  # a flag without a value in earlier versions
            values = [left.popleft().text for _ in range(min(count, len(left)))]
            self.take(word.line, found, [value] if equals else values, " ".join((word.text, *values)))

    def take(self, line: int, found: tuple[ServerFlag, str], values: list[str], written: str | None = None) -> None:
        """Take an option by one of its spellings, with its values. ``written`` is its text in the foreign file."""
        flag, name = found
        on = name not in flag.negations
        text = written or " ".join((name, *values))
        if flag.key in ("api-key", "hf-token"):
            self._report.secret(line, f"--{flag.key}", values, HUB_TOKEN if flag.key == "hf-token" else KEY_FILE)
            return
        if any(map(holds_secret, values)):
            self._report.secret(line, f"--{flag.key}", values, KEY_FILE)
            return
        if flag.kind not in ("none", "switch") and not values:
            self.skip(line, text, "the value is missing")
            return
        value = values[0] if values else None
        try:
            self._take(line, text, flag, value, values, on=on)
        except PathNotTaken as error:
            self.skip(line, text, str(error))
            if flag.key == "model":
                self.left_out = str(error)

    def take_variable(self, line: int, text: str, name: str, value: str) -> bool:
        """Take an environment variable of llama-server; returns whether it is one."""
        found = self._flags.find_variable(name)
        if found is None:
            return False
        flag, on = found
        self.take_switchable(line, text, (flag, flag.names[-1]), value, negated=not on)
        return True

    def take_switchable(
        self, line: int, text: str, found: tuple[ServerFlag, str], value: str, *, negated: bool = False
    ) -> None:
        """Take an option whose value may be true or false where a command line has a flag: a variable, an INI key."""
        flag, name = found
        if flag.kind != "none":
            self.take(line, (flag, name), [value], text)
            return
        if value not in (*_TRUE, *_FALSE):
            self.skip(line, text, "expected on or off")
            return
        on = (value in _TRUE) == ((name not in flag.negations) != negated)
        off = next((each for each in flag.names if each in flag.negations), None)
        positive = next(each for each in flag.names if each not in flag.negations)
        if on or off:
            self.take(line, (flag, positive if on else str(off)), [], text)
        else:
            self.skip(line, text, "off is the default", "not needed")

    # One option

    def _take(self, line: int, text: str, flag: ServerFlag, value: str | None, values: list[str], *, on: bool) -> None:
        special = getattr(self, f"_take_{flag.key.replace('-', '_')}", None)
        if flag.kind == "removed":
            self.skip(line, text, "llama-server has removed this option")
        elif flag.key in _INFORMATION:
            self.skip(line, text, "prints information and starts no server")
        elif flag.key in _ROUTER:
            self.skip(line, text, "the gateway decides which models are loaded", "not needed")
            self.left_out = self.left_out or ("" if flag.key == "models-autoload" else "a router serves several models")
        elif re.fullmatch(r"(embd|fim|gpt-oss|vision)-.+-(default|spec)", flag.key):
            self.left_out = f"--{flag.key} names a model of llama-server's own choice"
            self.skip(line, text, "name the model instead")
        elif special is not None:
            special(line, text, value or "", on)
        elif flag.key in SAMPLING_FLAGS:
            number = _number(value or "")
            if isinstance(number, str):
                self.skip(line, text, "expected a number")
            else:
                self.put(line, text, ("sampling", SAMPLING_FLAGS[flag.key]), number)
        else:
            self._llama(line, text, flag, values, on=on)

    def _llama(self, line: int, text: str, flag: ServerFlag, values: list[str], *, on: bool) -> None:
        """Put an option of llama-server into ``llama``."""
        key = flag.key if f"--{flag.key}" not in _OURS else next(each for each in flag.names if each not in _OURS)
        note = ""
        if flag.kind == "none":
            self.put(line, text, ("llama", key), on)
            return
        if flag.kind == "pair":
            self.skip(line, text, "an option with two values cannot be written in `llama`")
            return
        if flag.kind == "switch" and not values:
            values, note = ["on"], "earlier versions took no value"
        value: Any = values[0]
        if takes_path(f"--{flag.key}"):
            value = self._path_value(f"--{flag.key}", value)
        elif flag.kind == "number" and value not in ("auto", "all"):
            value = _number(value)
            if isinstance(value, str):
                self.skip(line, text, "expected a number")
                return
        if flag.key in _JOINED and isinstance(was := self.table.get("llama", {}).get(key), str):
            value = f"{was},{value}"
            self.table["llama"].pop(key)
        if flag.key in _REPEATED and (was := self.table.get("llama", {}).get(key)) is not None:
            value = [*(was if isinstance(was, list) else [was]), value]
        self.put(line, text, ("llama", key), value, note)

    def _path_value(self, option: str, value: str) -> str:
        if option in ("--lora-scaled", "--control-vector-scaled"):
            fields = [field.rpartition(":") for field in parse_row(value)]
            return format_row([f"{self._paths.path(path)}:{scale}" for path, _, scale in fields])
        if option == "--control-vector":
            return format_row([self._paths.path(field) for field in parse_row(value)])
        return self._paths.path(value)

    def take_unknown(self, line: int, name: str, values: list[str]) -> None:
        """Report an option that llama-server does not have."""
        if _SECRET_NAME.search(name):
            self._report.secret(line, name, values, "set it in the environment")
        else:
            self.skip(line, " ".join((name, *values)), "llama-server has no such option")

    # Options with a key of their own

    def _take_model(self, line: int, text: str, value: str, _on: bool) -> None:
        if "source" in self.table and not self.table["source"].endswith(".gguf"):
            self.skip(line, text, "the model is taken from the Hub", "not needed")
        else:
            self.put(line, text, ("source",), self._paths.source(value))

    def _take_hf_repo(self, line: int, text: str, value: str, _on: bool) -> None:
        self.put(line, text, ("source",), value)

    def _take_hf_file(self, line: int, text: str, value: str, _on: bool) -> None:
        self.put(line, text, ("filename",), value)

    def _take_model_url(self, line: int, text: str, value: str, _on: bool) -> None:
        if found := _HUB_URL.fullmatch(value):
            revision = "" if found[2] == "main" else f"@{found[2]}"
            self.put(line, text, ("source",), f"{found[1]}{revision}")
            self.put(line, text, ("filename",), found[3])
        else:
            self.left_out = "the model is at a URL outside the Hub"
            self.skip(line, text, "fetch the file, and name it as source")

    def _take_docker_repo(self, line: int, text: str, _value: str, _on: bool) -> None:
        self.left_out = "the model is in Docker's registry"
        self.skip(line, text, "models of Docker's registry are not fetched; take the same model from the Hub")

    def _take_alias(self, line: int, text: str, value: str, _on: bool) -> None:
        for each in value.split(","):
            self.alias(line, text, each.strip())

    def _take_host(self, line: int, text: str, value: str, _on: bool) -> None:
        if self._listens != "here":
            self.skip(line, text, _NOT_HERE[self._listens], "not needed")
        else:
            open_to_all = value in ("0.0.0.0", "::")  # noqa: S104 - what is imported
            self.put(line, text, ("host",), value, "other machines need a key: api_key_file" if open_to_all else "")

    def _take_port(self, line: int, text: str, value: str, _on: bool) -> None:
        number = _number(value)
        self.port = number if isinstance(number, int) else self.port
        if self._listens != "here":
            self.skip(line, text, _NOT_HERE[self._listens], "not needed")
        elif isinstance(number, int) and 0 <= number < 1 << 16:
            self.put(line, text, ("port",), number)
        else:
            self.skip(line, text, "expected a port")

    def _take_ctx_size(self, line: int, text: str, value: str, _on: bool) -> None:
        number = _number(value)
        if number == 0:
            self.put(line, text, ("ctx_size",), "auto", "the model's own, as far as it fits")
        elif isinstance(number, int) and number > 0:
            self.put(line, text, ("ctx_size",), number)
        else:
            self.skip(line, text, "expected a number of tokens")

    def _take_threads(self, line: int, text: str, value: str, _on: bool) -> None:
        number = _number(value)
        if isinstance(number, int) and number > 0:
            self.put(line, text, ("threads",), number)
        elif isinstance(number, int):
            self.skip(line, text, "the default: the physical cores", "not needed")
        else:
            self.skip(line, text, "expected a number")

    def _take_gpu_layers(self, line: int, text: str, value: str, _on: bool) -> None:
        layers: Any = {"-1": "auto", "-2": "all"}.get(value, _number(value))
        if layers in ("auto", "all") or (isinstance(layers, int) and layers >= 0):
            self.put(line, text, ("gpu_layers",), layers)
        else:
            self.skip(line, text, "expected a number, auto or all")

    def _take_lora(self, line: int, text: str, value: str, _on: bool) -> None:
        paths = [self._paths.path(each) for each in parse_row(value) if each]
        self.put(line, text, ("lora",), [*self.table.get("lora", ()), *paths])

    def _take_mmproj_auto(self, line: int, text: str, _value: str, on: bool) -> None:
        self.put(line, text, ("projector",), on)

    def _take_chat_template_kwargs(self, line: int, text: str, value: str, _on: bool) -> None:
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.skip(line, text, "expected a JSON object")
            return
        for key, each in found.items():
            self.put(line, text, ("template", key), each)

    def _take_offline(self, line: int, text: str, _value: str, _on: bool) -> None:
        self.put(line, text, ("offline",), True)

    def _take_api_key_file(self, line: int, text: str, value: str, _on: bool) -> None:
        self.put(line, text, ("api_key_file",), self._paths.path(value))

    def _take_ssl_cert_file(self, line: int, text: str, value: str, _on: bool) -> None:
        self.put(line, text, ("tls_cert",), self._paths.path(value))

    def _take_ssl_key_file(self, line: int, text: str, value: str, _on: bool) -> None:
        self.put(line, text, ("tls_key",), self._paths.path(value))


def name_of(source: str) -> str:
    """Return a name for a model, made from its path or its name on the Hub."""
    last = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    last = re.sub(r"(?i)(-\d{5}-of-\d{5})?\.gguf$", "", last).partition(":")[0].partition("@")[0]
    return re.sub(r"(?i)-gguf$", "", last).strip() or "model"


def _is_value(word: str) -> bool:
    return not word.startswith("-") or _NUMBER.fullmatch(word) is not None


def _number(text: str) -> int | float | str:
    """Return a number, or the text where it is none."""
    if _INTEGER.fullmatch(text):
        return int(text)
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else text
