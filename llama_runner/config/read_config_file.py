"""Reads a configuration file with its includes into checked tables, and collects every mistake."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llama_runner.config.errors import ConfigError, Mistake, did_you_mean, dotted, no_such_config_error
from llama_runner.config.known_keys import MODEL_OPTIONS, ROOT, SAMPLING, SAMPLING_FLAGS, SHARED_OPTIONS, Section
from llama_runner.config.secret_check import has_secret
from llama_runner.config.toml import TOMLDecodeError, loads
from llama_runner.config.value_types import WrongValue, is_too_large, path_of, read_value, shown
from llama_runner.core.errors import UsageError
from llama_runner.serving.llama_server.absolute_option_paths import absolute_options
from llama_runner.serving.llama_server.launch_spec import instead_of
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llama_runner.config.toml import ParsedFiles
    from llama_runner.core.option_definition import Option

LARGEST = 4 << 20
"""Bytes of a file at most."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DEEPEST = 32
_MANY = 500
"""Mistakes above which no nearest key is looked for: that takes a millisecond."""
_LONGEST_NAME = 200
_NAMES = "names are printable text without commas, and without spaces at the ends"
_VARIABLE = r"\$\$\{|\$\{([^}]*)\}"
_OUR_FLAGS = {
    flag: (key, option)
    for key, option in MODEL_OPTIONS.items()
    if option.kind != "flag"  # llama-server's --mmproj and --offline are others
    for flag in (*option.flags, *option.old_flags)
}

_OF_ITS_OWN = {
    "--chat-template-kwargs": "template = { … }",
    "--alias": "aliases = […]",
    "-a": "aliases = […]",
}

Keys = tuple[str, ...]


def can_be_name(name: str) -> bool:
    """Return whether a model, preset, variant or adapter can be called so. llama-server divides names at commas."""
    return bool(name) and name == name.strip() and name.isprintable() and "," not in name and len(name) <= _LONGEST_NAME


class Reader:
    """Reads one file and what it includes. ``tables`` has what is read; ``places`` which file a table is from."""

    def __init__(
        self,
        environment: Mapping[str, str],
        texts: Mapping[Path, str] | None = None,
        parsed: ParsedFiles | None = None,
    ) -> None:
        """``texts`` stand for the content of these files. ``parsed`` has files that were parsed before."""
        self._environment, self._texts, self._parsed = environment, texts or {}, parsed
        self.mistakes: list[Mistake] = []
        self.tables: dict[str, Any] = {"defaults": {}, "models": {}, "presets": {}, "gateway": {}, "store": {}}
        self.places: dict[Keys, Path] = {}
        """The file of each table, and of each key of ``defaults``, ``gateway`` and ``store``."""
        self.files: dict[Path, str] = {}
        """The text of each file, in the order of reading."""
        self._lines: dict[Path, dict[Keys, int]] = {}

    def read(self, path: Path) -> None:
        """Read a file; raises ``ConfigError`` for one that cannot be parsed, ``UsageError`` for one that is missing."""
        self._read(path, ())

    def add(self, path: Path | None, keys: Keys, text: str, hint: str | None = None) -> None:
        """Add a mistake at a key of a file."""
        place = path or self.place_of(keys)
        self.mistakes.append(Mistake(place, self.line_of(place, keys), dotted(keys), text, hint))

    def did_you_mean(self, name: str, known: Iterable[str]) -> str | None:
        """Return a hint with the nearest known name; None if none is near, or after many mistakes."""
        return did_you_mean(name, known) if len(self.mistakes) < _MANY else None

    def has_mistake(self, *keys: str) -> bool:
        """Return whether a mistake at this key was added."""
        return any(mistake.key == dotted(keys) for mistake in self.mistakes[-_MANY:])

    def line_of(self, path: Path, keys: Keys) -> int | None:
        """Return the line of a key in a file that was read; None if the file does not hold the key."""
        if path not in self._lines:
            from llama_runner.config.toml_statements import lines_of  # noqa: PLC0415 - only for messages

            self._lines[path] = lines_of(self.files[path])
        return self._lines[path].get(keys)

    def place_of(self, keys: Keys) -> Path:
        """Return the file that a key is from."""
        found = (self.places.get(keys[:count]) for count in range(len(keys), 0, -1))
        return next(filter(None, found), next(iter(self.files)))

    def _read(self, path: Path, above: tuple[Path, ...]) -> None:
        text = self._texts[path] if path in self._texts else text_of(path, above)
        try:
            if (line := _too_many_dots(text)) is not None:
                raise ConfigError([Mistake(path, line, "", f"a key has more than {_DEEPEST} parts")])
            value = loads(text) if self._parsed is None else self._parsed.loads(path, text)
        except TOMLDecodeError as error:
            said = str(error)
            where = re.search(r" \(at line (\d+), column \d+\)$|\(at end of document\)$", said)
            line = int(where[1]) if where and where[1] else None
            raise ConfigError([Mistake(path, line, "", f"not TOML: {said}")]) from None
        self.files[path] = text
        value = _File(self, path, value, self._environment).checked()
        for each in value.pop("include", ()):
            self._include(path, each, (*above, path))
        value.pop("environment", None)
        for table, found in value.items():
            if table in ("models", "presets"):
                for name, entry in found.items():
                    self._take_entry(path, (table, name), entry)
            else:  # what is nearer to the user counts: this file over those that it includes
                self.tables[table] = _merged(self.tables[table], found)
                self.places |= {(table, key): path for key in found}

    def _take_entry(self, path: Path, keys: Keys, entry: dict[str, Any]) -> None:
        table, name = keys
        if name in self.tables[table]:
            self.add(path, keys, f"declared in {self.places[keys]} too", "rename one of them")
            return
        self.tables[table][name] = entry
        self.places[keys] = path

    def _include(self, path: Path, name: str, above: tuple[Path, ...]) -> None:
        try:
            target = path_of(name, path.parent)
        except ValueError:
            self.add(path, ("include",), f"{shown(name)} is not a path")
            return
        if target in above:
            chain = " includes ".join(map(str, (*above[above.index(target) :], target)))
            self.add(path, ("include",), f"files include each other: {chain}")
        elif target not in self.files:
            try:
                self._read(target, above)
            except ConfigError as error:
                self.mistakes += error.mistakes
            except UsageError as error:
                self.add(path, ("include",), str(error))


class _File:
    """Checks the tables of one file."""

    def __init__(self, reader: Reader, path: Path, value: dict[str, Any], environment: Mapping[str, str]) -> None:
        self._reader, self._path, self._value = reader, path, value
        declared = value.get("environment")
        names = declared if isinstance(declared, list) else []
        self._variables = {name: environment.get(name) for name in names if isinstance(name, str)}

    def checked(self) -> dict[str, Any]:
        """Return the tables with values of their kinds; what is wrong is left out."""
        return self._table((), self._value, ROOT)

    def _mistake(self, keys: Keys, text: str, hint: str | None = None) -> None:
        self._reader.add(self._path, keys, text, hint)

    def _table(self, above: Keys, value: dict[str, Any], section: Section) -> dict[str, Any]:
        if section.free:
            return self._free(above, value, section.free)
        found: dict[str, Any] = {}
        for key, each in value.items():
            keys = (*above, key)
            below = section.tables.get(key, section.named)
            if (option := section.keys.get(key)) and not (key in section.tables and isinstance(each, dict)):
                self._take_value(keys, option, each, found)
            elif below is None:
                self._unknown(keys, section)
            elif not isinstance(each, dict):
                self._mistake(keys, f"expected a table, got {shown(each)}")
            elif key in section.tables or self._is_name(keys, key):
                found[key] = self._table(keys, each, below)
        if "llama" in section.tables:
            self._move_ours((*above, "llama"), found)
        return found

    def _take_value(self, keys: Keys, option: Option, value: Any, found: dict[str, Any]) -> None:  # noqa: ANN401 - a TOML value
        try:
            found[keys[-1]] = read_value(option, self._replaced(value), self._path.parent)
        except WrongValue as error:
            self._mistake(keys, str(error), error.hint or _way_out(keys[-1]))
            return
        for name in found[keys[-1]] if keys[-1] == "aliases" else ():
            self._is_name(keys, name)

    def _is_name(self, keys: Keys, name: str) -> bool:
        if can_be_name(name):
            return True
        self._mistake(keys, f"{name!r} cannot be a name", _NAMES)
        return False

    def _unknown(self, keys: Keys, section: Section) -> None:
        key, known = keys[-1], [*section.keys, *section.tables]
        same = key.replace("-", "_")
        hint = f"did you mean {same}?" if same in known else self._reader.did_you_mean(key, known)
        if hint is None and "llama" in known:
            hint = "options of llama-server are keys of `llama`; llama-runner config schema lists the others"
        self._mistake(keys, "there is no such key", hint or f"the keys here are {', '.join(sorted(known))}")

    def _free(self, above: Keys, value: dict[str, Any], kind: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, given in value.items():
            keys = (*above, key)
            try:
                each = self._replaced(given)
            except WrongValue as error:
                self._mistake(keys, str(error), error.hint)
                continue
            if is_too_large(each):
                self._mistake(keys, f"expected a finite number of at most 64 bits, got {shown(each)}")
            elif has_secret(each):
                self._mistake(keys, "a secret does not belong into this file", _way_out(key))
            elif kind == "sampling":
                if key not in SAMPLING:
                    known = f"the keys here are {', '.join(SAMPLING)}"
                    self._mistake(keys, "there is no such key", self._reader.did_you_mean(key, SAMPLING) or known)
                elif isinstance(each, bool) or not isinstance(each, (int, float)) or each - each != 0:
                    self._mistake(keys, f"expected a number, got {shown(each)}")
                else:
                    found[key] = each
            elif kind == "template":
                self._take_template(keys, each, found)
            elif not isinstance(each, (str, int, float, list)) or (
                isinstance(each, list) and not all(isinstance(one, (str, int, float)) for one in each)
            ):
                self._mistake(keys, f"expected text, a number, true, false or a list of these, got {shown(each)}")
            else:
                found[key] = each
        return found

    def _take_template(self, keys: Keys, value: Any, found: dict[str, Any]) -> None:  # noqa: ANN401 - a TOML value
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            self._mistake(keys, f"expected a value that JSON can hold, got {shown(value)}")
        else:
            found[keys[-1]] = value

    def _move_ours(self, above: Keys, found: dict[str, Any]) -> None:
        """Move what stands in ``llama`` and has a key of its own to that key."""
        left: dict[str, Any] = {}
        for key, value in found.get("llama", {}).items():
            keys, flag = (*above, key), key if key.startswith("-") else f"--{key.replace('_', '-')}"
            (ours, option), instead = _OUR_FLAGS.get(flag, ("", None)), instead_of(flag)
            if option is not None:
                try:
                    self._move(keys, ours, read_value(option, value, self._path.parent), found)
                except WrongValue as error:
                    self._mistake(keys, str(error), _way_out(key))
            elif flag[2:] in SAMPLING_FLAGS:
                self._move(keys, SAMPLING_FLAGS[flag[2:]], value, found.setdefault("sampling", {}))
            elif flag in _OF_ITS_OWN:
                self._mistake(keys, "has a key of its own", f"write it as `{_OF_ITS_OWN[flag]}`")
            elif instead is not None:
                self._mistake(keys, "is not passed on to llama-server", f"use {instead} instead")
            elif flag in left:
                self._mistake(keys, "stands here twice")
            else:
                left[flag] = self._absolute(flag, value)
        if "llama" in found:
            found["llama"] = {flag.removeprefix("--"): value for flag, value in left.items()}

    def _absolute(self, flag: str, value: Any) -> Any:  # noqa: ANN401 - text, number, bool, list
        """Return a value with relative paths taken from the directory of the file."""
        if isinstance(value, list):
            return [self._absolute(flag, each) for each in value]
        return absolute_options((flag, value), self._path.parent)[1] if isinstance(value, str) else value

    def _move(self, keys: Keys, name: str, value: Any, into: dict[str, Any]) -> None:  # noqa: ANN401 - of its kind
        if name in into and into[name] != value:
            self._mistake(keys, f"{name} says {shown(into[name])}, this {shown(value)}", "leave one of them out")
        into[name] = value

    def _replaced(self, value: Any) -> Any:  # noqa: ANN401 - a TOML value
        """Return a value with the environment variables in its texts replaced."""
        if isinstance(value, list):
            return [self._replaced(each) for each in value]
        if isinstance(value, dict):
            return {key: self._replaced(each) for key, each in value.items()}
        if not isinstance(value, str) or "${" not in value:
            return value
        return re.sub(_VARIABLE, self._variable, value)

    def _variable(self, match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        value = self._variables.get(name)
        if value is not None:
            return value
        if name in self._variables:
            raise WrongValue(f"the environment has no {name}", f"set {name}")
        raise WrongValue(f"${{{name}}} is not declared", f'add "{name}" to `environment`; $${{ stands for ${{')


def text_of(path: Path, above: tuple[Path, ...]) -> str:
    """Return the text of a file that the files ``above`` include. Raises ``ConfigError``, ``UsageError`` for none."""
    if len(above) >= _DEEPEST:
        raise ConfigError([Mistake(above[-1], None, "include", f"files include each other more than {_DEEPEST} deep")])
    try:
        found = read_bounded(path, LARGEST)
    except FileNotFoundError:
        raise no_such_config_error(path) from None
    except OSError as error:
        raise ConfigError([Mistake(path, None, "", f"cannot be read: {error.strerror or error}")]) from error
    try:
        return found.removeprefix(_BYTE_ORDER_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        line = found.count(b"\n", 0, error.start) + 1
        raise ConfigError([Mistake(path, line, "", "not UTF-8")]) from None


def _too_many_dots(text: str) -> int | None:
    """Return the first line with a key of so many parts that the parser would take minutes."""
    if text.count(".") < _DEEPEST:
        return None
    part = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
    key = rf"""(?<![\w"'-])(?:{part}){{{_DEEPEST}}}"""
    text_value = r"""(=[ \t]*)(?:"(?:[^"\\]|\\.)*"|'[^']*')"""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") >= _DEEPEST and re.search(key, re.sub(text_value, r"\1", line)):
            return number
    return None


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return two tables as one; ``above`` counts, table by table."""
    tables = {
        key for key in below.keys() & above.keys() if isinstance(above[key], dict) and isinstance(below[key], dict)
    }
    both = {key: _merged(below[key], above[key]) for key in tables}
    return {**below, **above, **both}


def _way_out(key: str) -> str | None:
    """Return the hint for a value that is refused."""
    name = key.lstrip("-").replace("-", "_")
    if name == "api_key":
        return 'write api_key_file = "FILE", set LLAMA_API_KEY, or write api_key = "auto"'
    if "token" in name and name not in SHARED_OPTIONS:
        return 'write token_file = "FILE", or set HF_TOKEN'
    return None
