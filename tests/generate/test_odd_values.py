"""Odd names and values in generated files come back unchanged from the parsers of others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import podman_compose
import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from llama_runner.config.config import Config
from llama_runner.generate.errors import CannotGenerate
from llama_runner.generate.generated_files import Generated, GenerateOptions, Target, generate
from llama_runner.generate.quoting import yaml_text
from llama_runner.serving import systemd_and_launchd_units
from tests.generate.checks import QUADLET
from tests.generate.conftest import toml

ODD = "\"'\\$%{}()[]#:;,&*!|>-?@` \t\n\r\x1b\x7f\x85\xa0ü\u2028\u202e\ufeff😀aZ019~=/.+"
odd_texts = st.one_of(
    st.text(ODD, max_size=12),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.sampled_from(
        ["on", "No", "~", "null", "1e3", "0o17", "0x1F", "1:30", "2026-11-22", ".nan", "<<", "=", "---", "- a"]
    ),
    st.sampled_from(["$HOME", "${X:-y}", "$(LLAMA_RUNNER_ROOT)", "$$", "%h", "%%n", "a b", "", " ", "\\n", "x\\"]),
)
names = odd_texts.map(
    lambda text: "".join(each for each in text if each.isprintable()).replace(",", "").strip()
).filter(bool)


def generated(target: Target, value: str, name: str = "one", **options: Any) -> Generated:
    """Return files for a model with a value as an option of llama-server and as an argument of its template."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "llama-runner.toml")
        model = {"source": "org/model", "llama": {"chat-template": value.replace("${", "$${")}}
        path.write_text(f"models = {toml({name: model})}\n", encoding="utf-8")
        return generate(
            target, Config.load(path, environment={}), (), GenerateOptions(**options), lambda _: (1 << 30, 0)
        )


def value_in(words: list[str]) -> str:
    """Return the value among the arguments of a container."""
    return words[words.index("--chat-template") + 1]


@settings(deadline=None)
@given(odd_texts)
def test_yaml_reads_back_in_both_of_its_versions(text: str) -> None:
    written = yaml_text([{"a": [text], "b": text}])
    assert written.isascii()
    for read in (yaml.safe_load, YAML(typ="safe").load):
        assert read(written) == {"a": [text], "b": text}


@settings(deadline=None)
@given(odd_texts.filter(lambda text: "${" not in text), names)
def test_compose_gives_the_arguments_unchanged(text: str, name: str) -> None:
    document = yaml.safe_load(generated("compose", text, name, memory=1 << 30).files["compose.yaml"])
    read: Any = podman_compose.rec_subs(document, {"HOME": "/else", "X": "x"})
    [service] = read["services"].values()
    words = service["command"]
    assert value_in(words) == text
    assert words[words.index("--alias") + 1] == name


@settings(deadline=None)
@given(odd_texts, names)
def test_kubernetes_gives_the_arguments_unchanged(text: str, name: str) -> None:
    made = generated("kubernetes", text, name, memory=1 << 30).files["llama-runner.yaml"]
    documents = list(YAML(typ="safe").load_all(made))
    [deployment] = [each for each in documents if each["kind"] == "Deployment"]
    words = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    # "Double $$ are reduced to a single $, which allows for escaping the $(VAR_NAME) syntax"
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", "".join(words))
    assert value_in([word.replace("$$", "$") for word in words]) == text
    assert deployment["metadata"]["annotations"]["llama-runner/model"] == name


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(odd_texts, max_size=30))
def test_kubectl_reads_what_was_written(texts: list[str]) -> None:
    values = {f"v{number}": text for number, text in enumerate(texts)}
    about = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": values}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x.yaml")
        path.write_text(yaml_text([about]))
        words = ["kubectl", "patch", "--local", "-f", str(path), "-o", "json", "--type", "merge", "-p", "{}"]
        done = subprocess.run(words, check=True, capture_output=True)
    assert (json.loads(done.stdout).get("data") or {}) == values


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(ODD.replace("/", "").replace("\r", ""), max_size=12))  # it shows \r as \n
@example("a\nb\"c' %h $X ü\\ ;")
def test_systemd_reads_the_words_unchanged(text: str) -> None:
    """It shows the path of a program as it read it if a character is in it that no path may have."""
    path = f"/x\x01{text}\x01"
    with tempfile.TemporaryDirectory() as directory:
        unit = Path(directory, "x.service")
        unit.write_text(f"[Service]\nExecStart={systemd_and_launchd_units.quoted(path)}\n", encoding="utf-8")
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], check=False, capture_output=True)
    said = done.stderr.decode()
    expected = f"Executable name contains special characters: {path}\n"
    assert re.sub(r"\n+", "\n", expected) in re.sub(r"\n+", "\n", said), said  # empty lines are left out there
    assert "Invalid escape sequences" not in said


@pytest.mark.skipif(QUADLET is None, reason="there is no quadlet")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(odd_texts, names)
@example("a\nb\"c' %h $X ${Y} ü\\ ;", "one")
def test_podman_and_systemd_give_the_arguments_unchanged(text: str, name: str) -> None:
    """Podman's generator reads the words and writes them again for systemd, which would read them once more."""
    assert QUADLET is not None
    try:
        made = generated("quadlet", text, name)
    except CannotGenerate:
        assert text in ("", ";") or name == ";"
        return
    with tempfile.TemporaryDirectory() as directory:
        made.write(f"{directory}/")
        done = subprocess.run(
            [QUADLET, "-user", "-dryrun"],
            check=True,
            capture_output=True,
            env={**os.environ, "QUADLET_UNIT_DIRS": directory},
        )
    [line] = re.findall(r"^ExecStart=/usr/bin/podman run .* (localhost/\S+ .*)$", done.stdout.decode(), re.MULTILINE)
    words = words_of(line)
    assert value_in(words) == text
    assert words[words.index("--alias") + 1] == name


ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}


def words_of(line: str) -> list[str]:
    """Return the words of a command line as systemd.service(5) has them: quotes, C escapes, ``%%`` and ``$$``."""
    found: list[str] = []
    for word in re.findall(r'"(?:[^"\\]|\\.)*"|(?:[^ \t\n\r"\\]|\\.)+', line, re.DOTALL):
        text = word[1:-1] if word.startswith('"') else word

        def unescaped(match: re.Match[str]) -> str:
            kind, digits = match[1][0], match[1][1:]
            return chr(int(digits, 16)) if digits else ESCAPES.get(kind, kind)

        text = re.sub(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)", unescaped, text, flags=re.DOTALL)
        assert not re.search(r"(?<!%)(%%)*%(?!%)", text), text
        assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", text), text
        found.append(text.replace("%%", "%").replace("$$", "$"))
    return found
