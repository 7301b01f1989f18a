"""The options of llama-server that importers and exporters know without installed programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.config.server_flags import TABLE, ServerFlag, server_flags, table_of
from llama_runner.llama_cpp.capabilities import Capabilities, Flag, probe


@pytest.fixture(scope="module")
def installed(binaries: Path) -> Capabilities:
    """Return what the compiled llama-server lists."""
    (directory,) = (path.parent for path in binaries.glob("bins/*/cpu-b*/llama-server"))
    return probe(directory)


def test_the_table_is_made_from_what_the_pinned_llama_server_lists(installed: Capabilities) -> None:
    made = table_of(installed)
    assert TABLE.read_text(encoding="utf-8") == made, (
        "run scripts/make_server_flags.py with the directory of the programs"
    )


def test_they_are_those_of_the_pinned_llama_server(installed: Capabilities) -> None:
    known = {flag.names: flag for flag in server_flags()}
    asked = {flag.names: flag for flag in server_flags(installed)}
    assert known == asked
    assert {flag.names for flag in installed.flags} == known.keys()


def test_options_of_a_later_llama_server_are_known_where_it_is_installed(installed: Capabilities) -> None:
    later = installed.replace(flags=(*installed.flags, Flag(("-nw", "--new"), "N", "number", env="LLAMA_ARG_NEW")))
    flags = server_flags(later)
    assert flags.find("--new") == (ServerFlag(("-nw", "--new"), "number", "LLAMA_ARG_NEW"), "--new")
    assert server_flags().find("--new") is None


@pytest.mark.parametrize(
    ("given", "key", "spelling"),
    [
        ("-c", "ctx-size", "-c"),
        ("--ctx_size", "ctx-size", "--ctx-size"),
        ("--no-webui", "ui", "--no-webui"),
        ("--draft-max", "spec-draft-n-max", "--spec-draft-n-max"),
    ],
)
def test_an_option_is_found_by_each_spelling(given: str, key: str, spelling: str) -> None:
    found = server_flags().find(given)
    assert found is not None
    assert (found[0].key, found[1]) == (key, spelling)


def test_which_spellings_switch_an_option_off() -> None:
    flags = server_flags()
    negations = {name: flag.negations for flag in flags for name in flag.names}
    assert negations["-nkvo"] == {"-nkvo", "--no-kv-offload"}
    assert negations["--no-mmproj"] == {"--no-mmproj", "--no-mmproj-auto"}
    assert negations["--no-host"] == frozenset()
    assert negations["--agent"] == {"-no-ag", "--no-agent"}


def test_keys_and_variables_mean_the_same_options() -> None:
    flags = server_flags()
    assert flags.find_key("ngl") == flags.find("-ngl")
    assert flags.find_key("no-mmap") == flags.find("--no-mmap")
    on, off = flags.find_variable("LLAMA_ARG_MMAP"), flags.find_variable("LLAMA_ARG_NO_MMAP")
    assert on is not None
    assert off == (on[0], False)
