"""Arguments that no model needs: an error of the usage, or a result; never a traceback."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from llama_runner import convert
from llama_runner.client import requests_to_server
from llama_runner.client.errors import RequestNotSent
from llama_runner.convert import model_card
from llama_runner.convert.errors import UnreadableFile
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.sources.gguf_header import NotGGUF, check_model
from tests.conftest import MODULE, Command, Result
from tests.convert.checkpoints import llama
from tests.fuzz.gguf_header import head, pair, string
from tests.shared_root import link_builds


def run(*arguments: str | bytes, **environment: str) -> Result:
    """Run the command line with arguments that may be bytes."""
    done = subprocess.run([*MODULE, *arguments], check=False, capture_output=True, env={**os.environ, **environment})
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in result.err, result
    return result


@pytest.mark.parametrize(
    "words",
    [
        ("infer", "--demo", "--prompt", "x", "--temperature", "nan"),
        ("infer", "--demo", "--prompt", "x", "--temperature", "inf"),
        ("infer", "--demo", "--prompt", "x", "--top-p", "nan"),
        ("plan", "--demo", "--lock-timeout", "nan"),
        ("plan", "--demo", "--lock-timeout", "inf"),
        ("plan", "--demo", "--load-timeout", "nan"),
        ("bins", "import", "--lock-timeout", "nan", "x"),
        ("bench", "--demo", "--seconds", "inf"),
        ("bench", "--demo", "--concurrency", "9" * 5000),
        ("tune", "--demo", "--budget", "nan"),
        ("plan", "--demo", "--max-size", "9" * 400 + "G"),
        ("plan", "--demo", "--ctx-size", "9" * 5000),
        ("plan", "--demo", "--ctx-size", "9" * 50),
    ],
    ids=" ".join,
)
def test_11_21_numbers_that_are_none_are_refused(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert (result.code, "Invalid value for" in result.err) == (2, True), result


def test_11_21_bytes_that_are_not_utf_8(root: Path) -> None:
    place = root / os.fsdecode(b"r\xff")
    link_builds(root, place)
    directory = shutil.copytree(MODEL_DIRECTORY, place / os.fsdecode(b"m\xff"))
    options = ("--root", os.fsencode(place))
    for words in (("prepare", "-q", "f16"), ("plan", "-q", "f16"), ("prepare", "-q", "q8_0"), ("plan", "-q", "q8_0")):
        result = run(*words, os.fsencode(directory), *options)
        assert result.code == 0, result
    assert run("status", *options).code == 0
    assert run("inspect", os.fsencode(directory)).code == 0
    assert run("service", "show", os.fsencode(directory)).code == 2
    asked = run("infer", "--demo", "--prompt", b"what is a step\xff", "--system", b"\xfe", "--root", os.fsencode(root))
    assert (asked.code, bool(asked.out.strip())) == (0, True), asked


def test_11_21_the_name_of_a_directory_does_not_blame_the_model_card(tmp_path: Path) -> None:
    convert.inspect(llama(tmp_path / os.fsdecode(b"m\xff")))


def test_11_21_half_a_surrogate_pair_in_config_json(llama_runner: Command, tmp_path: Path) -> None:
    directory = llama(tmp_path / "m")
    config = directory / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "odd": "\ud800"}))
    result = llama_runner("inspect", directory)
    assert (result.code, "\\ud800" in result.out) == (0, True), result
    assert llama_runner("inspect", directory, "--json").json["metadata"]["odd"] == "\ud800"


@pytest.mark.parametrize("name", ["m-00000-of-00000.gguf", "m-00003-of-00002.gguf", "m-00000-of-00001.gguf"])
def test_11_21_a_shard_whose_name_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(head([pair("general.architecture", 8, string(b"llama"))], []))
    with pytest.raises(NotGGUF, match="its name says shard"):
        check_model(tmp_path / name)


def test_11_21_a_request_that_json_has_no_word_for() -> None:
    with pytest.raises(RequestNotSent, match="the request cannot be sent: Out of range float"):
        _ = requests_to_server.chat("a", temperature=float("nan")).content
    assert requests_to_server.chat("\ud800").content == b'{"messages":[{"role":"user","content":"\\ud800"}]}'


def test_11_21_of_a_model_card_only_the_front_matter_is_read(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_bytes(b"---\nlicense: mit\n---\n" + b"text \xff\n" * 10_000_000)
    before = time.process_time()
    assert model_card.read(tmp_path) == {"license": "mit"}
    assert time.process_time() - before < 5, "all of it takes a minute"
    card.write_bytes(b"---\n" + b"text\n" * 1_000_000)
    with pytest.raises(UnreadableFile, match="its front matter does not end within"):
        model_card.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{y}: &{y} [{','.join(['*' + x] * 9)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a {k: 1, l: 2}\n"
        + "".join(
            f"{y}: &{y} {{<<: [{','.join(['*' + x] * 9)}]}}\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "a: &a [*a]\n",
        "a: " + "1:" * 100_000 + "1\n",
        "a: " + "9" * 100_000 + "\n",
    ],
    ids=["aliases", "merges", "endless", "base 60", "digits"],
)
def test_11_21_yaml_that_stands_for_more_than_it_says_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{text}---\n", encoding="utf-8")
    with pytest.raises(UnreadableFile, match="its front matter has more than 300000 values"):
        model_card.read(tmp_path)


def test_the_front_matter_is_read_as_gguf_does_it(tmp_path: Path) -> None:
    import gguf

    for text in (
        *("---\na: b\n---\nbody\n", "---\na: b", "---", "", "---\n---\n", "a\n---\n", "--- \na: b\n---\n"),
        *("---\r\nlanguage:\r\n- no\r\n---\r\n", "---\n\ta: b\n---\n", "---\n- a\n- no\n---\n", "---\nx\n---\n"),
        *("---\na: 2026-01-01\nb: yes\nc: 0x1F\nd: 1:20\n---\n", "---\na: 'é\u2028b'\n---\n", "\ufeff---\na: b\n---\n"),
        *("---\nx: &a {b: 1}\ny: *a\nz: {<<: *a}\n---\n"),
    ):
        (tmp_path / "README.md").write_bytes(text.encode())
        assert model_card.read(tmp_path) == gguf.Metadata.load_model_card(tmp_path), text


@pytest.mark.parametrize("words", [("infer", "--demo", "--prompt", "-"), ("chat", "--demo")])
def test_11_21_a_closed_standard_input_is_an_empty_one(words: tuple[str, ...], root: Path) -> None:
    shell = f"exec {shlex.join([*MODULE, *words, '--root', str(root)])} <&-"
    done = subprocess.run(["sh", "-c", shell], check=False, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if words[0] == "infer" else 0), done


def test_13_03_a_name_that_the_locale_cannot_write_is_served(root: Path, tmp_path: Path) -> None:
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / "née")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    at = ("--root", str(root))
    assert run("run", str(model), *at, "--port", "0", "--detach", **ascii_only).code == 0
    assert run("stop", "née", *at, **ascii_only).out.startswith("stopped   n\\xe9e:q4_k_m at ")
