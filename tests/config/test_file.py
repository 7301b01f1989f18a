"""What a configuration file may say, and how each mistake in it is told."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_runner.config.config import Config
from llama_runner.config.errors import ConfigError
from llama_runner.config.read_config_file import LARGEST
from llama_runner.core.errors import UsageError
from llama_runner.system.platforms import user_id
from tests.config.files import Write, mistakes, told

NOT_A_NUMBER = "expected a whole number from 0 to 65535, got"


def test_a_file_is_read_with_every_part_of_it(write: Write, tmp_path: Path) -> None:
    path = write("""
[defaults]
ctx_size = "auto"

[models."qwen:8b"]
source = "Qwen/Qwen3-8B-GGUF:Q4_K_M"
aliases = ["gpt-4o-mini"]
pin = true
ttl = "10m"
gpu_layers = "all"
llama = { parallel = 2, temp = 0.5, port = 81 }
sampling = { top_k = 20 }
template = { enable_thinking = false }
system = "Be brief."

[models."qwen:8b".variants.fast]
aliases = ["quick"]
sampling = { temperature = 0.3 }

[models."qwen:8b".adapters.legal]
path = "adapters/legal.gguf"
scale = 0.5

[presets.mine]
threads = 2

[gateway]
listen = ["127.0.0.1:8080"]
max_pull = "20G"
memory = { host = "80%", device = 1000 }

[store]
older_than = "7d"
""")
    config = Config.load(str(path))
    model = config.models["qwen:8b"]
    assert (model.source, model.aliases, model.pin, model.ttl) == (
        "Qwen/Qwen3-8B-GGUF:Q4_K_M",
        ("gpt-4o-mini",),
        True,
        600,
    )
    assert model.options == {"gpu_layers": "all", "port": 81}
    assert (model.llama, model.sampling) == ({"parallel": 2}, {"top_k": 20, "temperature": 0.5})
    assert model.variants["fast"].sampling == {"temperature": 0.3}
    assert model.adapters["legal"].path == tmp_path / "project" / "adapters" / "legal.gguf"
    assert (config.gateway.max_pull, config.gateway.memory.host, config.store.older_than) == (20 << 30, "80%", 604800)
    assert config.presets["mine"].options == {"threads": 2}
    assert config.find("quick") is config.find("gpt-4o-mini") is config.find("qwen:8b:legal") is model
    assert config.find("qwen") is None


def test_an_empty_file_declares_nothing(write: Write) -> None:
    assert not Config.load(write("")).models


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('port = "8080"', f"{NOT_A_NUMBER} '8080'"),
        ("port = true", f"{NOT_A_NUMBER} true"),
        ("port = 80.0", f"{NOT_A_NUMBER} 80.0"),
        ("port = -1", f"{NOT_A_NUMBER} -1"),
        ("port = 99999999999999999999999", f"{NOT_A_NUMBER} 99999999999999999999999"),
        ("port = 2020-01-01", f"{NOT_A_NUMBER} 2020-01-01"),
        ("ctx_size = nan", "expected a whole number of at least 1, or 'auto', got nan"),
        ('ctx_size = "al"', "expected a whole number of at least 1, or 'auto', got 'al'"),
        ("ttl = inf", "expected seconds, or text such as '10m', got inf"),
        ('ttl = "1y"', "expected seconds, or text such as '10m', got '1y'"),
        ("pin = 1", "expected true or false, got 1"),
        ("restart = true", "expected 'no' or 'on-failure' or 'always', got true"),
        ('restart = "maybe"', "expected 'no' or 'on-failure' or 'always', got 'maybe'"),
        ('system = ""', "expected text, got ''"),
        ('llama = "-c 4"', "expected a table, got '-c 4'"),
        ("tls_cert = []", "expected a path, got []"),
        ("aliases = [1]", "expected a list of texts, got [1]"),
    ],
)
def test_a_value_of_another_kind_is_told_with_its_line_and_what_is_expected(write: Write, line: str, text: str) -> None:
    path = write(f'[models.a]\nsource = "ORG/MODEL"\n\n{line}\n')
    assert [each[:3] for each in told(path)] == [(4, f"models.a.{line.partition(' ')[0]}", text)]


def test_one_text_in_place_of_a_list_is_told_with_the_list(write: Write) -> None:
    path = write('[models.a]\nsource = "ORG/MODEL"\naliases = "b"\n')
    assert told(path) == [(3, "models.a.aliases", "expected a list of texts, got 'b'", "write aliases = ['b']")]


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ('[models.a]\nsorce = "x"', "models.a.sorce", "did you mean source?"),
        ('[models.a]\nsource = "x"\nctx-size = 5', "models.a.ctx-size", "did you mean ctx_size?"),
        ('[model.a]\nsource = "x"', "model", "did you mean models?"),
        ("[gateway]\nlisen = []", "gateway.lisen", "did you mean listen?"),
        ("[gateway.memory]\nhots = 1", "gateway.memory.hots", "did you mean host?"),
        ("[store]\nmaxsize = 1", "store.maxsize", "did you mean max_size?"),
        ("[defaults]\nthread = 1", "defaults.thread", "did you mean threads?"),
        ("[defaults.sampling]\ntempreature = 1", "defaults.sampling.tempreature", "did you mean temperature?"),
        ("[presets.p]\nsource = 1", "presets.p.source", None),
        ("[defaults]\nsource = 1", "defaults.source", None),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_one(write: Write, text: str, key: str, hint: str | None) -> None:
    [(_, where, what, said)] = told(write(text))
    assert (where, what) == (key, "there is no such key")
    assert hint is None or said == hint


def test_every_mistake_is_told_in_the_order_of_the_file_and_the_error_says_how_many_there_are(write: Write) -> None:
    path = write('[models.b]\nsource = "x"\nport = "1"\n\n[models.c]\n\n[defaults]\nthreads = 0\n')
    with pytest.raises(ConfigError, match=r"models\.b\.port") as caught:
        Config.load(path)
    assert [each.line for each in caught.value.mistakes] == [3, 5, 8]
    assert str(caught.value) == f"{path}:3: models.b.port: {NOT_A_NUMBER} '1'"
    assert caught.value.hint == "llama-runner config check shows 2 more mistakes"
    assert caught.value.mistakes[1].to_json() == {
        "file": str(path),
        "line": 5,
        "key": "models.c",
        "text": "has no source",
        "hint": 'write source = "ORG/MODEL", a file or a directory',
    }


def test_a_model_has_one_source(write: Write) -> None:
    path = write('[models.a]\nsource = "x"\ndemo = true\n[models.b]\ndemo = false\n[models.c]\nsource = 1\n')
    assert [(line, text) for line, _, text, _ in told(path)] == [
        (1, "source and demo both name a model"),
        (4, "has no source"),
        (7, "expected text, got 1"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        'source = "hf_abcdefghijklmnopqrst"',
        'source = "https://user:word@example.org/m.gguf"',
        'source = "https://example.org/m.gguf?token=abc"',
        'source = "x"\napi_key = "abcdefgh"',
        'source = "x"\nllama = { api-key = "abcdefgh" }',
        'source = "x"\nllama = { hf-token = "abcdefgh" }',
        'source = "x"\nllama = { thing = ["sk-abcdefghijklmnopqrstuv"] }',
        'source = "x"\ntemplate = { a = { b = ["sk-abcdefghijklmnopqrstuv"] } }',
        'source = "x"\nsystem = "hf_abcdefghijklmnopqrst"',
        'source = "${TOKEN}"',
    ],
)
def test_secrets_are_refused_and_never_shown(write: Write, line: str) -> None:
    path = write(f'environment = ["TOKEN"]\n[models.a]\n{line}\n')
    [mistake] = mistakes(path, {"TOKEN": "hf_abcdefghijklmnopqrst"})
    assert not any(secret in f"{mistake} {mistake.hint}" for secret in ("abcdefgh", "word@", "=abc"))


def test_the_word_auto_is_no_secret(write: Write) -> None:
    assert Config.load(write('[models.a]\nsource = "x"\napi_key = "auto"')).models["a"].options == {"api_key": "auto"}


@pytest.mark.parametrize("name", ["qwen:8b", "org/model", "模型", "ä b", "a.b", 'q"uote', "back\\slash", "--flag"])
def test_a_model_may_have_any_printable_name(write: Write, name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    assert list(Config.load(write(f'[models."{quoted}"]\nsource = "x"')).models) == [name]
    [(_, key, _, _)] = told(write(f'[models."{quoted}"]\nsource = "x"\nport = "1"'))
    assert key == (f'models."{quoted}".port' if name != "--flag" else "models.--flag.port")


@pytest.mark.parametrize("name", ["", " a", "a ", "a,b", "a\\u0007", "a\\u202eb", "a\\nb", "a" * 201])
def test_a_name_that_cannot_be_typed_or_shown_is_refused(write: Write, name: str) -> None:
    [(line, _, text, hint)] = told(write(f'[models."{name}"]\nsource = "x"'))
    assert (line, "cannot be a name" in text, str(hint).startswith("names are")) == (1, True, True)
    [(line, key, _, _)] = told(write(f'[models.a]\nsource = "x"\naliases = ["{name}"]'))
    assert (line, key) == (3, "models.a.aliases")


def test_control_characters_of_a_file_are_never_in_a_message(write: Write) -> None:
    path = write('[models."a\\u001b[31m"]\nsource = "x"\n[models.b]\nsource = "x"\nport = "\\u001b[31m"\n"\\u0007" = 1')
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    assert str(caught.value).isprintable()
    assert len(caught.value.mistakes) == 3


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('[models.a]\nsource = "x"\n[models.b]\nsource = "y"\naliases = ["a"]', (5, "'a' is a name of 'a' too")),
        ('[models.a]\nsource = "x"\naliases = ["b", "b"]', (3, "'b' is a name of 'a' too")),
        ('[models.a]\nsource = "x"\naliases = ["a"]', (3, "'a' is a name of 'a' too")),
        (
            '[models.a]\nsource = "x"\n[models.a.variants.f]\n[models."a:f"]\nsource = "y"',
            (3, "'a:f' is a name of 'a:f' too"),
        ),
        (
            '[models.a]\nsource = "x"\n[models.a.variants.f]\n[models.a.adapters.f]\npath = "p"',
            (4, "'a:f' is a name of 'a' too"),
        ),
    ],
)
def test_a_name_means_one_model(write: Write, text: str, mistake: tuple[int, str]) -> None:
    assert [(line, what) for line, _, what, _ in told(write(text))] == [mistake]


def test_presets_and_fallbacks_that_do_not_exist_are_told_with_the_nearest_one(write: Write) -> None:
    path = write('[models.abc]\nsource = "x"\npreset = "mien"\nfallback = ["abd"]\n[presets.mine]\n')
    assert [(line, hint) for line, _, _, hint in told(path)] == [(3, "did you mean mine?"), (4, "did you mean abc?")]


def test_presets_that_lead_to_themselves_are_told(write: Write) -> None:
    path = write('[presets.a]\npreset = "b"\n[presets.b]\npreset = "a"\n[presets.c]\npreset = "a"\n')
    assert [(line, text) for line, _, text, _ in told(path)] == [
        (2, "leads to itself: a → b → a"),
        (4, "leads to itself: b → a → b"),
    ]


def test_options_of_llama_server_that_are_ours_become_ours(write: Write) -> None:
    path = write('[models.a]\nsource = "x"\nllama = { ctx_size = 5, "-ngl" = "all", top-p = 0.5, jinja = true }')
    model = Config.load(path).models["a"]
    assert model.options == {"ctx_size": 5, "gpu_layers": "all"}
    assert (model.sampling, model.llama) == ({"top_p": 0.5}, {"jinja": True})


@pytest.mark.parametrize(
    ("llama", "text"),
    [
        ("{ ctx-size = 5 }\nctx_size = 6", "ctx_size says 6, this 5"),
        ('{ model = "x" }', "is not passed on to llama-server"),
        ('{ alias = "x" }', "has a key of its own"),
        ('{ chat-template-kwargs = "{}" }', "has a key of its own"),
        ("{ n-cpu-moe = 1, n_cpu_moe = 2 }", "stands here twice"),
        ("{ port = -5 }", "expected a whole number from 0 to 65535, got -5"),
        ("{ x = { y = 1 } }", "expected text, a number, true, false or a list of these, got {'y': 1}"),
    ],
)
def test_options_of_llama_server_that_cannot_be_passed_on_are_told(write: Write, llama: str, text: str) -> None:
    [(_, _, what, _)] = told(write(f'[models.a]\nsource = "x"\nllama = {llama}\n'))
    assert what == text


def test_environment_variables_are_used_where_they_are_declared_only(write: Write) -> None:
    text = '[models.a]\nsource = "${WHERE}/m"\nsystem = "$${WHERE} costs $$5"\nllama = { x = ["${WHERE}"] }\n'
    declared = 'environment = ["WHERE"]\n' + text
    model = Config.load(write(declared), environment={"WHERE": "/tmp"}).models["a"]
    assert (model.source, model.system, model.llama) == ("/tmp/m", "${WHERE} costs $$5", {"x": ["/tmp"]})
    assert [(line, what, hint) for line, _, what, hint in told(write(declared))] == [
        (3, "the environment has no WHERE", "set WHERE"),
        (5, "the environment has no WHERE", "set WHERE"),
    ]
    assert told(write(text), {"WHERE": "x"})[0][2:] == (
        "${WHERE} is not declared",
        'add "WHERE" to `environment`; $${ stands for ${',
    )


def test_the_source_of_llama_cpp_has_a_key_of_its_own(write: Write) -> None:
    path = write('[models.a]\nsource = "ORG/MODEL"\nllama_cpp_source = "./llama.cpp"\n')
    resolved = Config.load(path).resolved("a")
    assert resolved.source == "ORG/MODEL"
    assert resolved.keywords == {"source": str(path.parent / "llama.cpp")}


class TestInclude:
    def test_an_included_file_has_its_own_directory_and_environment(self, write: Write) -> None:
        path = write('environment = ["A"]\ninclude = ["more/b.toml"]\n[models.a]\nsource = "./m.gguf"')
        other = write('[models.b]\nsource = "./m.gguf"\ntls_key = "k"\nsystem = "${A}"\n', "more/b.toml")
        assert [(each.path, each.line) for each in mistakes(path, {"A": "1"})] == [(other, 4)]
        write('[models.b]\nsource = "./m.gguf"\ntls_key = "k"\n', "more/b.toml")
        config = Config.load(path, environment={})
        assert [config.resolved(name).source for name in "ab"] == [
            str(path.parent / "m.gguf"),
            str(other.parent / "m.gguf"),
        ]
        assert config.models["b"].options["tls_key"] == other.parent / "k"

    def test_what_the_including_file_says_counts_more(self, write: Write) -> None:
        path = write('include = ["b.toml"]\n[defaults]\nthreads = 1\n[defaults.llama]\nx = 1')
        write("[defaults]\nthreads = 2\nport = 5\n[defaults.llama]\nx = 2\ny = 2", "b.toml")
        defaults = Config.load(path).defaults
        assert (defaults.options, defaults.llama) == ({"threads": 1, "port": 5}, {"x": 1, "y": 2})

    def test_cycles_missing_files_and_names_twice_are_told(self, write: Write) -> None:
        path = write('include = ["b.toml", "gone.toml", "", "\\u0000"]\n[models.a]\nsource = "x"')
        other = write('include = ["llama-runner.toml"]\n[models.a]\nsource = "x"', "b.toml")
        found = mistakes(path)
        assert {(each.path.name, each.line, each.text.replace(f"{path.parent}/", "")) for each in found} == {
            ("b.toml", 1, "files include each other: llama-runner.toml includes b.toml includes llama-runner.toml"),
            (path.name, 1, "gone.toml does not exist"),
            (path.name, 1, "'' is not a path"),
            (path.name, 1, "'\\x00' is not a path"),
            (path.name, 2, f"declared in {other} too".replace(f"{path.parent}/", "")),
        }

    def test_a_file_that_two_others_include_is_read_once(self, write: Write) -> None:
        path = write('include = ["b.toml", "c.toml"]')
        write('include = ["d.toml"]', "b.toml")
        write('include = ["d.toml"]', "c.toml")
        write('[models.a]\nsource = "x"', "d.toml")
        assert list(Config.load(path).models) == ["a"]

    def test_a_long_chain_of_includes_ends(self, write: Write) -> None:
        for number in range(50):
            write(f'include = ["{number + 1}.toml"]', f"{number}.toml")
        [(_, _, text, _)] = told(write('include = ["0.toml"]'))
        assert "more than 32 deep" in text


@pytest.mark.parametrize(
    ("content", "line", "text"),
    [
        (b'[models.a]\nsource = "\xff"', 2, "not UTF-8"),
        (b"\xff\xfe[\x00", 1, "not UTF-8"),
        (b"a = \n", 1, "not TOML"),
        (b"a = 1\na = 2\n", 2, "not TOML"),
        (b"[a]\n\n[a]\n", 3, "not TOML"),
        (b"a = 1\r[b]", 1, "not TOML"),
        (b'a = "\x00"', 1, "not TOML"),
        (b"a = " + b"[" * 100_000, None, "nested too deeply"),
        (b"a = " + b"{a=" * 20_000, None, "nested too deeply"),
        (b"x = 1\na" + b".a" * 100_000 + b" = 1", 2, "a key has more than 32 parts"),
        (b'x = { "a"' + b' . "a"' * 100_000 + b" = 1 }", 1, "a key has more than 32 parts"),
        (b"# " + b"x" * LARGEST, None, "larger than the limit"),
    ],
)
def test_a_file_that_is_no_toml_is_told_with_its_line(
    write: Write, content: bytes, line: int | None, text: str
) -> None:
    [(where, _, what, _)] = told(write(content))
    assert (where, text in what) == (line, True), what


def test_a_byte_order_mark_and_line_ends_of_windows_are_accepted(write: Write) -> None:
    path = write(b'\xef\xbb\xbf[models.a]\r\nsource = "x"\r\nport = "1"\r\n')
    assert told(path)[0][:2] == (3, "models.a.port")


def test_a_text_with_many_dots_is_no_deep_key(write: Write) -> None:
    path = write('[models.a]\nsource = "x"\nsystem = "' + "a.b " * 100 + "a." * 100 + '"\n')
    assert Config.load(path).models["a"].system


def test_thousands_of_mistakes_are_told_in_a_bounded_time(write: Write) -> None:
    path = write('[models.a]\nsource = "x"\n' + "".join(f"ctx_siz{number} = 1\n" for number in range(5000)))
    found = told(path)
    assert (len(found), found[0][3], found[4999][0]) == (5000, "did you mean ctx_size?", 5002)


class TestOtherThanAFile:
    def test_a_file_that_does_not_exist_is_a_wrong_use(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"gone\.toml does not exist") as caught:
            Config.load(tmp_path / "gone.toml")
        assert caught.value.hint == "llama-runner config init writes one"

    def test_a_directory_a_fifo_and_a_socket_are_not_read(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(tmp_path / "socket"))
            for name in ("fifo", "socket", "."):
                [(_, _, text, _)] = told(tmp_path / name)
                assert text.startswith("cannot be read: ")

    @pytest.mark.skipif(not user_id(), reason="root may read everything")
    def test_a_file_that_may_not_be_read_is_told(self, write: Write) -> None:
        path = write("")
        path.chmod(0)
        [(_, _, text, _)] = told(path)
        assert text == "cannot be read: Permission denied"


NINES = "9" * 5000
HEX = "0x" + "f" * 5000


@pytest.mark.parametrize("value", [NINES, HEX, "1e400", "-inf", "nan"])
@pytest.mark.parametrize("key", ["port", "ttl", "llama.x", "sampling.top_k", "template.x", "load_timeout", "max_size"])
def test_numbers_that_no_program_takes_are_mistakes(write: Write, key: str, value: str) -> None:
    [mistake] = mistakes(write(f'[models.a]\nsource = "x"\n{key} = {value}\n'))
    assert len(str(mistake)) < 400


EXAMPLE = """
include = []
environment = ["A"]
[defaults]
threads = 2
[models."qwen:8b"]
source = "${A}/x"
aliases = ["b"]
ttl = "10m"
llama = { parallel = 2, jinja = true, override-kv = ["a=int:1"] }
template = { a = [1, { b = 2020-01-01 }] }
[models."qwen:8b".variants.v]
sampling = { temperature = 0.5 }
[models."qwen:8b".adapters.l]
path = "a"
[presets.p]
preset = "chat"
[gateway]
memory = { host = "80%" }
"""
ODD = ["\n", "\x00", "\x1b", "\u202e", "[", "]", "{", "}", '"""', "=", "1e9", "-0", "true", ".", "$"]
PIECES = st.sampled_from([*re.findall(r"\S+", EXAMPLE), *ODD])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(EXAMPLE)), st.integers(0, 12), PIECES), min_size=1, max_size=4))
def test_any_damaged_file_is_read_or_its_mistakes_are_told(write: Write, changes: list[tuple[int, int, str]]) -> None:
    text = EXAMPLE
    for at, length, piece in changes:
        text = text[:at] + piece + text[at + length :]
    path = write(text)
    with suppress(ConfigError):
        config = Config.load(path, environment={"A": "/a"})
        for name in config.models:
            config.resolved(name, environment={})
        return
    assert all(str(each) for each in mistakes(path, {"A": "/a"}))


def test_an_adapter_has_a_name_that_can_be_mixed_and_one_source(tmp_path: Path) -> None:
    path = tmp_path / "llama-runner.toml"
    path.write_text(
        '[models.m]\nsource = "x"\n[models.m.adapters."a+b"]\npath = "p"\n[models.m.adapters.latest]\npath = "p"\n'
        '[models.m.adapters.two]\npath = "p"\nsource = "org/name"\n[models.m.adapters.hub]\nsource = "org/name@v1"\n'
        '[models.m.adapters.trained]\nsource = "legal@v2"\n[models.m.adapters.here]\nsource = "./p"\n'
    )
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    assert [mistake.text for mistake in caught.value.mistakes] == [
        "'a+b' is no name of an adapter",
        "'latest' is no name of an adapter",
        "path and source both name an adapter",
    ]
    kept = path.read_text().partition("[models.m.adapters.hub]")
    path.write_text('[models.m]\nsource = "x"\n' + kept[1] + kept[2])
    adapters = Config.load(path).models["m"].adapters
    assert {name: each.where for name, each in adapters.items()} == {
        "hub": "org/name@v1",
        "trained": "legal@v2",
        "here": str(tmp_path / "p"),
    }
