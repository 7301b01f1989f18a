"""Start the conversion of another architecture: family module, registry entry, cases, digests, row of the docs.

    python scripts/new_architecture.py XverseForCausalLM --like llama
    python scripts/new_architecture.py XverseForCausalLM --record

ARCHITECTURE is a name of ``architectures`` in config.json that llama.cpp's own script converts and llama_runner does
not yet. ``--like`` names the checkpoints of tests/convert/families/layouts.py that it begins as. What is made
converts like that family; where the new one differs, change the family module and the cases, record the digests again
with ``--record``, and run the command that is printed. With LLAMA_RUNNER_REFERENCE_PYTHON and
LLAMA_RUNNER_REFERENCE_TREE (see scripts/reference_env.py) the digests are the official script's; without them they
are our own, and one test fails until they are confirmed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import gguf  # noqa: E402

from llama_runner.convert.families import ARCHITECTURES, family_of  # noqa: E402
from llama_runner.convert.families.family_definition import unchanged  # noqa: E402
from llama_runner.convert.official_architectures import MODELS  # noqa: E402
from tests.convert.families.layouts import BASES  # noqa: E402

REGISTRY = REPOSITORY / "llama_runner" / "convert" / "families" / "__init__.py"
CASES = REPOSITORY / "tests" / "convert" / "families"
DATA = REPOSITORY / "tests" / "data" / "convert"

CASES_TEXT = '''"""Tiny models of {title}."""

from __future__ import annotations

from tests.convert.families.layouts import BASES
from tests.convert.tiny import ALL
from tests.convert.variations import like, variations

BASE = like(BASES["{like}"], "{architecture}", "{model_type}")
CASES = {{"{module}": BASE.case(outtypes=ALL), **variations(BASE)}}
'''
DERIVE_TEXT = '''
def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in what follows from other values, as for {like_type}."""
    del model_type
    return {like_family}.derive(values, "{like_type}")

'''
FAMILY_TEXT = '''"""{title}: what {like_family} is, under another name.

Follows the class that registers ``{architecture}`` in llama.cpp's conversion/.
"""

from __future__ import annotations

from dataclasses import replace
{typing}
from llama_runner.convert.families import {like_module}

DEFAULTS: dict[str, Any] = dict({like_family}.defaults["{like_type}"])

{derive}
FAMILY = replace(
    {like_family},
    name="{gguf}",
    defaults={{"{model_type}": DEFAULTS}},
    validated_rope={validated},
    new_rope={new},{derived}
)
'''


class NotPossibleError(Exception):
    """The skeleton cannot be made; the text says why."""


@dataclass(frozen=True)
class Names:
    """What is called how."""

    architecture: str
    like: str
    module: str
    gguf: str
    model_type: str

    @property
    def files(self) -> tuple[Path, Path]:
        """The module of the family, and that of its cases."""
        return REGISTRY.with_name(f"{self.module}.py"), CASES / f"{self.module}.py"


def check(names: Names) -> None:
    """Raise `NotPossibleError` where a name is taken or not known."""
    if names.architecture in ARCHITECTURES:
        raise NotPossibleError(f"{names.architecture} is converted already, by {ARCHITECTURES[names.architecture]}")
    if names.architecture not in MODELS:
        near = get_close_matches(names.architecture, MODELS - set(ARCHITECTURES))
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise NotPossibleError(f"the pinned llama.cpp does not convert {names.architecture}{hint}")
    if names.like not in BASES:
        raise NotPossibleError(f"there are no checkpoints called {names.like}; there are {', '.join(BASES)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", names.module):
        raise NotPossibleError(f"{names.module!r} is no name of a module; pass --module")
    if names.gguf not in gguf.MODEL_ARCH_NAMES.values():
        near = get_close_matches(names.gguf, gguf.MODEL_ARCH_NAMES.values())
        raise NotPossibleError(f"GGUF has no architecture {names.gguf!r}; pass --gguf (near: {', '.join(near) or '-'})")
    for file in names.files:
        if file.exists():
            raise NotPossibleError(f"{file.relative_to(REPOSITORY)} exists; pass --module, or add to it by hand")


def without_a_name_in_gguf(names: Names) -> list[str]:
    """Return the tensors of the family it is like that llama.cpp does not know for the new one."""
    key = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == names.gguf)
    known = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[key]}
    family = family_of(BASES[names.like].config["architectures"][0])
    return sorted({rule.name for rule in family.rules} - known)


def write_skeleton(names: Names) -> None:
    """Write both modules and the entry of the registry."""
    config = BASES[names.like].config
    like_family, like_type = ARCHITECTURES[config["architectures"][0]], config["model_type"]
    family = family_of(config["architectures"][0])
    is_derived = family.derive is not unchanged
    values = {
        **vars(names),
        "title": re.split(r"For|Model$", names.architecture)[0],
        "like_family": like_family,
        "like_module": like_family.partition(".")[0],
        "like_type": like_type,
        "validated": _one(names.model_type, is_in=like_type in family.validated_rope),
        "new": _one(names.model_type, is_in=like_type in family.new_rope),
        "typing": "from typing import Any\n",
        "derived": "\n    derive=derive," if is_derived else "",
    }
    values["derive"] = DERIVE_TEXT.format(**values) if is_derived else ""
    for file, text in zip(names.files, (FAMILY_TEXT, CASES_TEXT), strict=True):
        file.write_text(text.format(**values), encoding="utf-8")
    registry = REGISTRY.read_text(encoding="utf-8")
    lines = re.findall(r'^    "\w+": "\w+\.\w+",\n', registry, re.MULTILINE)
    entry = f'    "{names.architecture}": "{names.module}.FAMILY",\n'
    REGISTRY.write_text(registry.replace("".join(lines), "".join(sorted([*lines, entry]))), encoding="utf-8")


def _one(name: str, *, is_in: bool) -> str:
    return f'frozenset({{"{name}"}})' if is_in else "frozenset()"


def record(module: str) -> int:
    """Record the digests of a module's cases, write the page anew, say what comes next; return the exit status."""
    reference = [os.environ.get(f"LLAMA_RUNNER_REFERENCE_{name}") for name in ("PYTHON", "TREE")]
    if all(reference):
        words = [str(DATA / "make_official.py"), *map(str, reference), module]
    elif (DATA / "official" / f"{module}.json").exists():
        print(f"error: the digests of {module} are the official script's, which is not here", file=sys.stderr)
        return 2
    else:
        words = ["-c", f"from tests.convert.official import record_our_own; record_our_own({module!r})"]
    for command in (words, [str(DATA / "make_table.py")]):
        if subprocess.run([sys.executable, *command], check=False, cwd=REPOSITORY).returncode:
            print("error: the cases are not converted; when both modules are right, use --record", file=sys.stderr)
            return 1
    if not all(reference):
        print("the digests are our own; record the official ones with tests/data/convert/make_official.py")
    print(f"test it: python -m pytest tests/convert -k '{module}'")
    return 0


def main() -> int:
    """Make what is missing, and print what comes next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture")
    parser.add_argument("--like", default="llama", help="the checkpoints that it begins as (default: llama)")
    parser.add_argument("--module", help="the name of the two modules (default: from ARCHITECTURE)")
    parser.add_argument("--gguf", help="llama.cpp's name of the architecture (default: the module's)")
    parser.add_argument("--model-type", help="model_type in config.json (default: the module's)")
    parser.add_argument("--record", action="store_true", help="only record the digests again, after a change")
    given = parser.parse_args()
    if given.record:
        if given.architecture not in ARCHITECTURES:
            print(f"error: {given.architecture} is not registered; leave out --record", file=sys.stderr)
            return 2
        return record(ARCHITECTURES[given.architecture].partition(".")[0])
    module = given.module or re.split(r"For|Model$", given.architecture)[0].lower()
    names = Names(given.architecture, given.like, module, given.gguf or module, given.model_type or module)
    try:
        check(names)
    except NotPossibleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    unknown = without_a_name_in_gguf(names)
    write_skeleton(names)
    family, cases = (file.relative_to(REPOSITORY) for file in names.files)
    print(f"made {family} and {cases}; registered {names.architecture}")
    print(f"change both where {names.architecture} differs, then use --record")
    if unknown:
        print(f"llama.cpp has no such tensors for {names.gguf}; remove their rules: {', '.join(unknown)}")
    sys.stdout.flush()
    return record(names.module)


if __name__ == "__main__":
    sys.exit(main())
