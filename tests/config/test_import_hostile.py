"""`config import` of hostile, damaged and huge files: an error that names the line, in bounded time and memory."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.config.import_file import FORMATS, import_file, import_text, import_words
from llama_runner.config.import_report import LARGEST, ImportFailed
from llama_runner.config.server_flags import server_flags
from llama_runner.core.errors import LlamaRunnerError, UsageError
from tests.config.imports import DATA, config_of, of_text
from tests.fuzzing import bounded

_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
_MODEL = "models:\n  a:\n    cmd: llama-server -m /m.gguf\n"
_MACROS = "macros:\n" + "".join(
    f"  m{number}: '{f'${{m{number - 1}}} ' * 10 if number else 'x'}'\n" for number in range(12)
)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("llama-swap", _LAUGHS + _MODEL, "more than 50000 values"),
        ("llama-swap", _MACROS + "models:\n  a:\n    cmd: llama-server ${m11}\n", "longer than 65536"),
        (
            "llama-swap",
            "macros: {a: '${b}', b: '${a}'}\nmodels: {m: {cmd: 'llama-server ${a}'}}\n",
            "contain each other",
        ),
        ("llama-swap", "models: " + "[" * 30_000, "nested more than 40 deep"),
        ("llama-swap", "models: &a {b: *a}\n", "an alias contains itself"),
        ("compose", "services: !!python/object/apply:os.system ['touch /tmp/owned']\n", "no table `services`"),
        ("hugind", "? [a, b]\n: c\n", "a key is no text"),
        ("hugind", "model: {path: a, path: b}\n", "given twice"),
        ("hugind", "model: {path: '\x07'}\n", "not YAML"),
        ("ini", "[a]\nmodel = /a.gguf\nthis is not a pair\n", "line 3: neither a section nor a key"),
        ("ini", "version = 1\n", "no section of a model"),
        ("modelfile", 'FROM ./a.gguf\nSYSTEM """never closed\n', "line 2: the text after SYSTEM has no closing"),
        ("modelfile", "FROM ./a.gguf\nRUN rm -rf /\n", "line 2: expected an instruction"),
        ("modelfile", "SYSTEM x\n", "there is no FROM"),
        ("command", "llama-server -m 'a.gguf\n", "line 1: a quotation mark is not closed"),
        ("command", "echo hello\n", "no llama-server is started"),
    ],
)
def test_a_hostile_file_is_an_error_that_says_what_is_wrong(kind: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match=message):
        of_text(text, tmp_path, format=kind)
    assert not Path("/tmp/owned").exists()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "text", ["", "\n", "\x00", "\ud800", "a" * 100_000, "[" * 10_000, "x: y\n" * 20_000, "-" * 50_000, "\\" * 50_000]
)
def test_nonsense_is_an_error_in_every_format(kind: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(LlamaRunnerError):
        of_text(text, tmp_path, format=kind)


_HUGE = {
    "words": ("command", "llama-server -m /m.gguf " + "a " * 200_000),
    "options": ("command", "llama-server -m /m.gguf " + "-c 1 " * 90_000),
    "secrets": ("command", "llama-server -m /m.gguf " + "".join(f"--api-key secret{n} " for n in range(20_000))),
    "keys": ("ini", "[a]\nmodel = /m.gguf\n" + "".join(f"k{n} = 1\n" for n in range(40_000))),
    "sections": ("ini", "[*]\nc = 1\n" + "".join(f"[{n}]\nmodel = /m.gguf\n" for n in range(20_000))),
    "names": ("command", "llama-server -m /m.gguf\n" * 20_000),
    "containers": ("command", "docker run " + "-e A=b " * 60_000 + "llama.cpp -m /m.gguf"),
    "parameters": ("modelfile", "FROM ./m.gguf\n" + "PARAMETER stop x\n" * 30_000),
    "services": (
        "compose",
        "services:\n" + "".join(f" s{n}: {{image: llama.cpp, command: -m /m}}\n" for n in range(12_000)),
    ),
}


@pytest.mark.parametrize("name", _HUGE)
def test_a_huge_file_ends_in_an_error_that_says_what_there_is_too_much_of(name: str, tmp_path: Path) -> None:
    kind, text = _HUGE[name]
    with pytest.raises(ImportFailed, match=r"more than \d+ (parts|values|secrets)"):
        import_text(text, format=kind, base=tmp_path, target=tmp_path)


_LONG = " " * 200_000
_LONG_LINES = {
    "ini": f"[a]\nmodel = /m.gguf\nchat-template = x{_LONG}y\n",
    "modelfile": f"FROM ./m.gguf\nSYSTEM {'a:' * 100_000}@=\n{_LONG}PARAMETER seed 1\n",
    "llama-swap": f"models: {{a: {{cmd: 'llama-server -m /m.gguf --chat-template \\{_LONG}x{'a:' * 60_000}@='}}}}\n",
    "command": f"llama-server -m /m.gguf \\{_LONG}x{'http://' * 30_000}@ {'$A' * 50_000}\n",
    "compose": f"services: {{a: {{image: llama.cpp, command: '-hf O/M {'${A:-' * 60_000}'}}}}\n",
    "hugind": f"model: {{path: /m.gguf}}\nserver: {{system_prompt: '{'${' * 100_000}{_LONG}'}}\n",
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_long_line_is_read_in_one_pass(kind: str, tmp_path: Path) -> None:
    config, found = of_text(_LONG_LINES[kind], tmp_path, format=kind)
    assert len(config.models) == 1
    assert max(len(item.text) for item in found.items) < 300


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(UsageError, match=f"larger than the limit of {LARGEST}"):
        import_file(large)
    with pytest.raises(UsageError, match="larger"):
        import_text(b"#" * (LARGEST + 1))


@pytest.mark.skipif(os.name == "nt", reason="there are no FIFOs")
def test_a_special_file_a_directory_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", ".", "absent"):
        with pytest.raises(UsageError, match="cannot be read"):
            import_file(tmp_path / name)
    (tmp_path / "latin").write_bytes(b"FROM ./a.gguf\nSYSTEM \xff\n")
    with pytest.raises(UsageError, match=r"not UTF-8 \(line 2\)"):
        import_file(tmp_path / "latin")


def test_control_characters_reach_neither_names_nor_messages(tmp_path: Path) -> None:
    text = 'models:\n  "a\\e[31m,b\\nc":\n    cmd: "llama-server -m /m.gguf -a x\\ey --bad\\e"\n'
    config, _ = of_text(text, tmp_path)
    assert list(config.models) == ["a[31m-bc"]
    with pytest.raises(ImportFailed) as caught:
        import_words(["\x1b[31mvllm"])
    assert "\x1b" not in str(caught.value)


def test_nothing_of_the_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_DIR", "/from/the/environment")
    swap = "models:\n  a:\n    cmd: llama-server -m ${env.SECRET_DIR}/a.gguf\n"
    compose = "services: {a: {image: llama.cpp, command: -m /m/$SECRET_DIR.gguf, volumes: ['${SECRET_DIR}:/m']}}\n"
    command = "llama-server -m $SECRET_DIR/$(id).gguf\n"
    for text in (swap, compose, command):
        found = import_text(text, base=tmp_path, target=tmp_path)
        assert "from/the/environment" not in str(found.to_json())


@pytest.mark.parametrize(
    "line",
    [
        "export HF_TOKEN=hf_0123456789abcdefghij",
        "curl -H 'Authorization: Bearer verysecret99' https://me:verysecret99@example.org",
        "llama-server -m /m.gguf --api-key verysecret99 --hf-token=hf_0123456789abcdefghij",
        "llama-server -m /m.gguf --unknown-token verysecret99 --model-alias sk-0123456789abcdefghij",
        "LLAMA_API_KEY=verysecret99 MY_PASSWORD=verysecret99 llama-server -m /m.gguf",
        "docker run -e LLAMA_API_KEY=verysecret99 --label token=verysecret99 -v /m:/m llama.cpp:server -m /m/a",
        "llama-server -m /m.gguf -a sk-0123456789abcdefghij --mmproj-url https://u:verysecret99@example.org/a",
        'llama-server -m /m.gguf --chat-template-kwargs \'{"k": "hf_0123456789abcdefghij"}\'',
    ],
)
def test_a_secret_is_written_nowhere(line: str, tmp_path: Path) -> None:
    config, found = of_text(f"{line}\nllama-server -m /other.gguf\n", tmp_path)
    shown = f"{found.to_json()}{(tmp_path / 'llama-runner.toml').read_text()}{config}"
    for secret in ("verysecret99", "hf_0123456789abcdefghij", "sk-0123456789abcdefghij"):
        assert secret not in shown


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir()))
@given(data=st.data())
@bounded(40)
def test_a_damaged_file_gives_an_error_or_a_valid_configuration(data: st.DataObject, name: str, tmp_path: Path) -> None:
    text = (DATA / name).read_text()
    source = random.Random(data.draw(st.integers(0, 1 << 32)))
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(text))
        extra = source.choice(
            ["", "\n", " ", '"', "'", ":", "- ", "${", "}", "\\", "#", "{", "[", "\t", "=", "é", "0", "\x1b"]
        )
        cut = source.randrange(0, 12)
        text = text[:at] + extra + text[at + cut :]
    try:
        found = import_text(text, format=None, base=tmp_path, target=tmp_path)
    except LlamaRunnerError:
        return
    config_of(found, tmp_path)
    found.to_json()


@given(
    words=st.lists(
        st.one_of(
            st.sampled_from(["-m", "/m.gguf", "-c", "-1", "0", "-fa", "--temp", "nan", "-a", ""]), st.text(max_size=8)
        ),
        max_size=8,
    )
)
@bounded(300)
def test_any_command_line_gives_an_error_or_a_valid_configuration(words: list[str], tmp_path: Path) -> None:
    try:
        found = import_words(["llama-server", "-m", "/m.gguf", *words])
    except LlamaRunnerError:
        return
    config_of(found, tmp_path)


_FLAGS = sorted({name for flag in server_flags() for name in flag.names})
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
)
_VALUE = st.one_of(
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(str),
    st.dictionaries(st.text(max_size=4), _JSON, max_size=2).map(json.dumps),
    st.sampled_from(["", " ", "on", "true", "a,b", "a:1", "\x00", "\udcff", "1e999", "0x10", "-1", "~", "..", "${x}"]),
)


@given(given=st.lists(st.tuples(st.sampled_from(_FLAGS), _VALUE), min_size=1, max_size=4))
@bounded(600)
def test_every_option_with_any_value_gives_an_error_or_a_server_that_can_be_described(
    given: list[tuple[str, str]], tmp_path: Path
) -> None:
    words = [word for pair in given for word in pair]
    try:
        found = import_words(["llama-server", "-m", "/m.gguf", *words])
    except LlamaRunnerError:
        return
    config = config_of(found, tmp_path)
    for name in config.models:
        assert config.resolved(name).server.names[0] == name
    json.dumps(found.to_json()).encode()
