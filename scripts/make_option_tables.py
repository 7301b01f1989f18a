"""Write docs/options.md, docs/configuration-keys.md and the JSON Schema: ``python scripts/make_option_tables.py``.

They are made from the definitions of the options and of the keys of the configuration file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from llama_runner.config import known_keys  # noqa: E402
from llama_runner.config.schema import FILE_NAME, schema  # noqa: E402
from llama_runner.core.option_definition import GROUPS, Option  # noqa: E402
from llama_runner.request.lifecycle_options import OPTIONS  # noqa: E402

HEAD = """# Options

Every option of `llama-runner run`; other commands take those that concern them. This page is made from the
definitions by `scripts/make_option_tables.py`, and a test compares the two. The keyword is that of `Runner` or
`ServerOptions` in Python.
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for group in GROUPS:
        options = [option for option in OPTIONS if option.group == group]
        if not options:
            continue
        parts.append(f"\n## {group[0].upper()}{group[1:]}\n\n| option | keyword | meaning |\n|---|---|---|\n")
        parts += [_row(option) for option in options]
    return "".join(parts)


def _row(option: Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in option.flags)
    keyword = f"`{option.name}`" if option.reader in ("artifacts", "server") else ""
    return f"| {flags} | {keyword} | {option.help_text.replace('|', chr(92) + '|')} |\n"


KEYS_HEAD = """# Keys of llama-runner.toml

Every key of the configuration file ([configuration.md](configuration.md)). This page is made from the definitions by
`scripts/make_option_tables.py`, and a test compares the two.
"""
_OF_MODELS = (
    "Of models, presets and `[defaults]`; the first four name the model in place of `source`, and are of models only."
)
KINDS = {
    "flag": "true or false",
    "integer": "whole number",
    "number": "number",
    "size": 'bytes, or `"8G"`',
    "share": 'bytes, `"8G"` or `"80%"`',
    "duration": 'seconds, or `"10m"`',
    "file": "path",
    "directory": "path",
    "list": "list of texts",
}


def keys_page() -> str:
    """Return the page of the keys."""
    model = known_keys.ROOT.tables["models"].named
    assert model is not None
    own = {name: option for name, option in model.keys.items() if name not in known_keys.MODEL_OPTIONS}
    adapter, variant = (model.tables[name].named for name in ("adapters", "variants"))
    assert adapter is not None
    assert variant is not None
    sampling = "".join(f"| `{name}` | number | `--{flag}` |\n" for name, flag in known_keys.SAMPLING.items())
    free = """| `llama` | table | Options of llama-server, without dashes: `llama = { parallel = 2 }`. |
| `sampling` | table | Defaults of sampling; see [below](#sampling). |
| `template` | table | Arguments of the chat template. |
"""
    parts = [
        KEYS_HEAD,
        _keys("The file", known_keys.ROOT.keys),
        _keys("[models.NAME]", own, "Names the model and its life cycle; the options of `run` are keys too.") + free,
        *(
            _keys(
                f"{group[0].upper()}{group[1:]}",
                {key: option for key, option in known_keys.MODEL_OPTIONS.items() if option.group == group},
                "Of models, presets and `[defaults]`." if group != "model" else _OF_MODELS,
            )
            for group in GROUPS
            if any(option.group == group for option in known_keys.MODEL_OPTIONS.values())
        ),
        "\n## sampling\n\n| key | value | option of llama-server |\n|---|---|---|\n" + sampling,
        _keys("[models.NAME.variants.NAME]", variant.keys, "`sampling` and `template` are tables here too."),
        _keys("[models.NAME.adapters.NAME]", adapter.keys),
        _keys("[models.NAME.sessions]", known_keys.SESSIONS, "Of presets and `[defaults]` too."),
        _keys("[gateway]", known_keys.GATEWAY),
        _keys("[gateway.memory]", known_keys.MEMORY),
        _keys("[store]", known_keys.STORE),
    ]
    return "".join(parts)


def _keys(title: str, options: Mapping[str, Option], text: str = "") -> str:
    rows = "".join(
        f"| `{key}` | {_kind(option)} | {option.help_text.replace('|', chr(92) + '|')} |\n"
        for key, option in options.items()
    )
    said = f"{text}\n\n" if text else ""
    return f"\n## {title}\n\n{said}| key | value | meaning |\n|---|---|---|\n{rows}"


def _kind(option: Option) -> str:
    words = [f'`"{word}"`' for word in (("auto",) if option.secret else option.choices)]
    if option.kind == "choice" or option.secret:
        return ", ".join(words)
    found = KINDS.get(option.kind, "whole number" if option.kind == "integer or word" else "text")
    return ", ".join([found, *words])


if __name__ == "__main__":
    (REPOSITORY / "docs" / "configuration-keys.md").write_text(keys_page(), encoding="utf-8")
    text = json.dumps(schema(), indent=2, ensure_ascii=False)
    (REPOSITORY / "docs" / FILE_NAME).write_text(f"{text}\n", encoding="utf-8")
    (REPOSITORY / "docs" / "options.md").write_text(page(), encoding="utf-8")
