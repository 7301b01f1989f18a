"""What the programs in hand can do, as they say themselves; asked once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.core.digest import file_digest
from llama_runner.llama_cpp.capabilities import (
    Capabilities,
    NoOptionsListed,
    capabilities_of,
    difference,
    parse_devices,
    parse_help,
    parse_types,
)
from llama_runner.sources.quantization_types import ALIASES, FLOAT, QUANTIZED
from llama_runner.system import hardware

DIGEST = file_digest("ab" * 32)
HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f32, f16
                                        (default: f16)
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to offload (default: enabled)
-ot,   --override-tensor <tensor name pattern>=<buffer type>,...
                                        override tensor buffer type
--draft N                               the argument has been removed. use --other
"""
SCRIPT = """#!/bin/sh
echo asked >> "$(dirname "$0")/asked"
case "$1" in
    --help) cat <<'END'
{help}END
    ;;
    --version) echo 'version: 1.0 (build 7, commit x)' ;;
    --list-devices) printf 'Available devices:\\n  Vulkan0: a card (1 MiB, 1 MiB free)\\n' ;;
esac
"""


@pytest.fixture(scope="module")
def real(binaries: Path) -> Path:
    """Return the directory of the real programs."""
    found = (path.parent for path in binaries.glob(f"bins/{hardware.platform_tag()}/*/llama-bench"))
    return max(found, key=lambda path: path.stat().st_mtime)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Return a directory with a llama-server that counts how often it is asked."""
    directory = tmp_path / "programs"
    directory.mkdir()
    (directory / "llama-server").write_text(SCRIPT.format(help=HELP))
    (directory / "llama-server").chmod(0o755)
    return directory


def asked(programs: Path) -> int:
    return len((programs / "asked").read_text().splitlines())


def test_the_real_programs_are_understood_whole(real: Path, tmp_path: Path) -> None:
    found = capabilities_of(real, DIGEST, tmp_path)
    context, context_too = found.flag("-c"), found.flag("--ctx_size")
    assert context is not None
    assert context is context_too
    assert (context.value, context.kind, context.env) == ("N", "number", "LLAMA_ARG_CTX_SIZE")
    assert found.version.startswith("0.")
    pooling = found.flag("--pooling")
    assert pooling is not None
    assert pooling.choices == ("none", "mean", "cls", "last", "rank")
    listed = {item.name.lower() for item in found.types}
    assert listed == {*QUANTIZED, *FLOAT, *ALIASES} - {"fp16", "fp32", "copy"}, "what may be asked for is what it makes"


def test_a_help_text_is_taken_apart() -> None:
    flags = {flag.names[0]: flag for flag in parse_help(HELP)}
    assert list(flags) == ["-h", "-c", "-ctk", "-kvo", "-ot", "--draft"]
    assert flags["-c"].default == "0, 0 = loaded from model"
    assert (flags["-ctk"].kind, flags["-ctk"].choices, flags["-ctk"].default) == ("choice", ("f32", "f16"), "f16")
    assert flags["-kvo"].names == ("-kvo", "--kv-offload", "-nkvo", "--no-kv-offload")
    assert flags["-ot"].value == "<tensor name pattern>=<buffer type>,..."
    assert flags["--draft"].removed == "use --other"


def test_programs_are_asked_once_and_each_of_another_digest_again(programs: Path, tmp_path: Path) -> None:
    first = capabilities_of(programs, DIGEST, tmp_path)
    times = asked(programs)
    assert (first.version, first.devices) == ("1.0 (build 7, commit x)", ("Vulkan0",))
    assert capabilities_of(programs, DIGEST, tmp_path) == first
    assert asked(programs) == times
    capabilities_of(programs, file_digest("cd" * 32), tmp_path)
    assert asked(programs) == 2 * times


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shape": 2, "flags": [{}]}', "\xff", '{"shape": 0}', "[" * 9999])
def test_what_is_kept_and_damaged_is_asked_again(programs: Path, tmp_path: Path, text: str) -> None:
    first = capabilities_of(programs, DIGEST, tmp_path)
    [kept] = (tmp_path / "capabilities").iterdir()
    kept.write_text(text)
    assert capabilities_of(programs, DIGEST, tmp_path) == first
    assert json.loads(kept.read_text())["flags"]


def test_where_nothing_can_be_kept_they_are_asked_each_time(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "capabilities").touch()
    assert capabilities_of(programs, DIGEST, tmp_path).flags
    assert capabilities_of(programs, DIGEST, tmp_path).flags


def test_a_program_that_lists_no_options_says_nothing(programs: Path, tmp_path: Path) -> None:
    (programs / "llama-server").write_text("#!/bin/sh\n")
    with pytest.raises(NoOptionsListed):
        capabilities_of(programs, DIGEST, tmp_path)


def test_what_differs_between_two_is_reported() -> None:
    newer = HELP.replace("-h,    --help, --usage", "-h,    --help         ").replace("f32, f16", "f32, f16, q8_0")
    newer = newer.replace("--draft N ", "--fresh N ").replace("the argument has been removed. ", "")
    types = [parse_types("  2  or  Q4_0  : 4.34G\n"), parse_types("  2  or  Q4_1  : 4.78G\n")]
    old, new = (Capabilities("", parse_help(text), of, ()) for text, of in zip((HELP, newer), types, strict=True))
    found = difference(old, new)
    assert (found.added, found.removed) == (("--fresh",), ("--draft",))
    assert (found.types_added, found.types_removed) == (("Q4_1",), ("Q4_0",))
    assert any("--usage" in line for line in found.changed)
    assert any(line.startswith("--cache-type-k: choices") for line in found.changed)
    assert difference(old, old).lines() == []


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    parse_help(text)
    parse_help(f"-x, {text}\n{' ' * 40}{text}")
    parse_types(text)
    parse_devices(text)
