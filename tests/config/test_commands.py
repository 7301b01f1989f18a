"""``config check``, ``show``, ``list``, ``diff``, ``schema``, ``path``, ``edit``, ``get``, ``set``, …, as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_runner.config.schema import schema
from llama_runner.demo import MODEL_DIRECTORY
from tests.config.files import Write, write_in
from tests.conftest import Command, says

FILE = f"""\
[defaults]
threads = 1
llama = {{ parallel = 2 }}
preset = "mine"

[models."tiny:demo"]
source = "{MODEL_DIRECTORY.as_posix()}"
aliases = ["little"]
port = 8123  # ours
llama = {{ ctx_size = 512 }}

[models."tiny:demo".variants.warm]
sampling = {{ temperature = 0.5 }}

[presets.mine]
quantization = "q8_0"
"""


@pytest.fixture
def declare(tmp_path: Path, llama_runner: Command) -> Write:
    """Return a function that writes the configuration file of the commands' working directory."""
    return write_in(tmp_path / "cwd")


@pytest.fixture
def path(declare: Write) -> Path:
    return declare(FILE)


class TestCheck:
    def test_a_file_without_mistakes(self, path: Path, llama_runner: Command, root: Path) -> None:
        done = llama_runner("config", "check", "--root", root)
        assert (done.code, done.out) == (0, f"{path}: 1 model, no mistakes\n"), done
        said = llama_runner("config", "check", "--root", root, "--json").json
        assert said == {"file": str(path), "models": 1, "mistakes": [], "options": True}

    def test_without_programs_it_says_what_is_not_checked(
        self, path: Path, llama_runner: Command, tmp_path: Path
    ) -> None:
        done = llama_runner("config", "check", "--root", tmp_path / "new")
        assert "no programs here to check options of llama-server against" in done.out
        assert not (tmp_path / "new").exists()

    def test_every_mistake_is_a_line_with_its_way_out(self, declare: Write, llama_runner: Command) -> None:
        path = declare('[models.a]\nsource = "x"\nprt = 1\n"\\u001b[31m" = 1\nport = "1"\n')
        done = llama_runner("config", "check")
        assert (done.code, done.err) == (2, "")
        assert done.out.splitlines() == [
            f"{path}:3: models.a.prt: there is no such key (did you mean port?)",
            (
                f'{path}:4: models.a."\\x1b[31m": there is no such key (options of llama-server are keys of `llama`; '
                "llama-runner config schema lists the others)"
            ),
            f"{path}:5: models.a.port: expected a whole number from 0 to 65535, got '1'",
        ]
        found = llama_runner("config", "check", "--json")
        assert (found.code, [each["line"] for each in found.json["mistakes"]]) == (2, [3, 4, 5])

    @pytest.mark.parametrize(
        ("llama", "text"),
        [
            ("parallell = 2", "llama-server has no such option (did you mean parallel?)"),
            ('parallel = "many"', "expected a number, got 'many'"),
            ("parallel = true", "expected a number, got true"),
            ("parallel = [1, 2]", "may be given once, got [1, 2]"),
            ("metrics = 1", "expected true or false, got 1"),
            ('cache-type-k = "q9_9"', "expected 'f32' or 'f16'"),
            ('"-np" = "x"', "expected a number, got 'x'"),
            ("parallel = false", "expected a number, got false"),
        ],
    )
    def test_options_of_llama_server_are_checked_against_the_programs(
        self, declare: Write, llama_runner: Command, root: Path, llama: str, text: str
    ) -> None:
        path = declare(
            f'[models.a]\nsource = "x/y"\nllama = {{ metrics = true, {llama} }}\n'.replace(
                "metrics = true, metrics", "metrics"
            )
        )
        done = llama_runner("config", "check", "--root", root)
        [line] = done.out.splitlines()
        assert (done.code, line.startswith(f"{path}:3: models.a.llama.")) == (2, True), done
        assert text in line

    @pytest.mark.parametrize(
        "llama",
        [
            "no-webui = true",
            "webui = false",
            "temp = 0.5",
            'flash-attn = "on"',
            "cache_ram = -1",
            'lora-scaled = "a:1"',
        ],
    )
    def test_options_of_llama_server_that_exist_are_accepted(
        self, declare: Write, llama_runner: Command, root: Path, llama: str
    ) -> None:
        declare(f'[models.a]\nsource = "x/y"\nllama = {{ {llama} }}\n')
        done = llama_runner("config", "check", "--root", root)
        assert done.code == 0, done

    def test_ports_used_twice_and_paths_that_are_gone_are_told(self, declare: Write, llama_runner: Command) -> None:
        path = declare("""
[gateway]
listen = ["127.0.0.1:82"]
tls_key = "gone.pem"
[models.a]
source = "./gone.gguf"
port = 81
lora = ["gone.gguf", "https://example.org/a.gguf"]
[models.b]
source = "x/y"
port = 81
[models.c]
source = "x/y"
port = 82
[models.d]
source = "x/y"
port = 0
[models.d.adapters.l]
path = "gone"
""")
        here = path.parent
        assert llama_runner("config", "check").out.splitlines() == [
            f"{path}:4: gateway.tls_key: {here}/gone.pem does not exist",
            f"{path}:6: models.a.source: {here}/gone.gguf does not exist",
            f"{path}:8: models.a.lora: {here}/gone.gguf does not exist",
            f"{path}:11: models.b.port: 127.0.0.1:81 is the address of a too (0 takes a free port)",
            f"{path}:14: models.c.port: 127.0.0.1:82 is the address of the gateway too (0 takes a free port)",
            f"{path}:19: models.d.adapters.l.path: {here}/gone does not exist",
        ]


class TestShow:
    def test_every_key_has_its_value_and_its_origin(self, path: Path, llama_runner: Command, root: Path) -> None:
        done = llama_runner("config", "show", "tiny:demo:warm", "--origin", "--host", "::1", "--root", root, "--json")
        [(name, keys)] = done.json.items()
        found = {each["key"]: (each["value"], each["origin"], each["place"]) for each in keys}
        assert name == "tiny:demo:warm"
        assert found["host"] == ("::1", "flag", None)
        assert found["port"] == (8123, "model", f"{path}:9")
        assert found["ctx_size"] == (512, "model", f"{path}:10")
        assert found["threads"] == (1, "defaults", f"{path}:2")
        assert found["llama.parallel"] == (2, "defaults", f"{path}:3")
        assert found["quantization"] == ("q8_0", "preset mine", f"{path}:16")
        assert found["sampling.temperature"] == (0.5, "variant warm", f"{path}:13")
        assert found["load_timeout"][1:] == ("built in", None)
        assert found["source"] == (str(MODEL_DIRECTORY), "model", f"{path}:7")

    def test_as_text_it_is_a_table(self, path: Path, llama_runner: Command, root: Path) -> None:
        lines = llama_runner("config", "show", "little", "--origin", "--root", root).out.splitlines()
        assert ["port", "8123", "model,", f"{path}:9"] in [line.split() for line in lines]
        assert not any("model," in line for line in llama_runner("config", "show", "--root", root).out.splitlines())

    def test_a_profile_is_a_layer(self, declare: Write, llama_runner: Command, root: Path) -> None:
        from llama_runner.store import layout

        directory = layout.profiles(root)
        directory.mkdir(parents=True)
        (directory / "fast.json").write_text(json.dumps({"settings": {"--threads": "3"}}))
        declare('[models.a]\nsource = "x/y"\nprofile = "fast"\n')
        shown = llama_runner("config", "show", "a", "--json", "--root", root)
        assert {"key": "threads", "value": 3, "origin": "profile fast", "place": None} in shown.json["a"], shown

    def test_an_unknown_name_is_told_with_the_nearest(self, path: Path, llama_runner: Command) -> None:
        says(llama_runner("config", "show", "tiny"), 2, "no model called 'tiny'", "did you mean tiny:demo?")

    def test_a_key_is_never_shown(self, declare: Write, llama_runner: Command) -> None:
        declare('[models.a]\nsource = "x/y"\n')
        done = llama_runner("config", "show", "a", "--origin", env={"LLAMA_API_KEY": "very-secret"})
        assert "very-secret" not in done.out


def test_list_names_every_model(path: Path, llama_runner: Command) -> None:
    assert llama_runner("config", "list").out.splitlines()[1].split() == [
        *("tiny:demo", str(MODEL_DIRECTORY), "little,", "tiny:demo:warm"),
    ]
    [found] = llama_runner("config", "list", "--json").json
    assert found["names"] == ["little", "tiny:demo:warm"]


def test_path_is_the_file_that_is_read(path: Path, llama_runner: Command, tmp_path: Path) -> None:
    assert llama_runner("config", "path").out == f"{path}\n"
    says(llama_runner("config", "path", "--config", tmp_path / "x.toml"), 2, "does not exist", "config init")
    path.unlink()
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    says(llama_runner("config", "path", "--root", tmp_path, env=env), 2, "config init")


def test_a_broken_file_does_not_keep_a_server_from_being_stopped(declare: Write, llama_runner: Command) -> None:
    declare("a =")
    says(llama_runner("stop", "a"), 2, "no server called 'a' runs")


def test_schema_is_printed_and_written(llama_runner: Command, tmp_path: Path) -> None:
    says(llama_runner("config", "schema", "-o", "/proc/x"), 7, "cannot write /proc/x")
    assert llama_runner("config", "schema").json == schema()
    assert llama_runner("config", "schema", "-o", tmp_path / "s.json").code == 0
    assert json.loads((tmp_path / "s.json").read_text()) == schema()


class TestDiff:
    def test_two_files(self, declare: Write, llama_runner: Command) -> None:
        declare('[models.a]\nsource = "x/y"\n[models.b]\nsource = "x/y"\n[defaults]\nport = 1\n', "old.toml")
        declare('[models.a]\nsource = "x/z"\nport = 2\n[models.c]\nsource = "x/y"\n[gateway]\nqueue = 3\n')
        done = llama_runner("config", "diff", "old.toml")
        assert (done.code, done.out.splitlines()) == (
            1,
            [
                "a.port: 1 -> 2",
                'a.source: "x/y" -> "x/z"',
                "b: is declared no longer",
                "c: is declared now",
                "gateway.queue: null -> 3",
            ],
        )
        same = llama_runner("config", "diff", "old.toml", "old.toml")
        assert (same.code, same.out, same.err) == (0, "", "nothing differs\n")

    def test_what_runs(self, path: Path, llama_runner: Command, root: Path) -> None:
        at = ("--root", root)
        path.write_text(FILE.replace("port = 8123", "port = 0"))
        assert llama_runner("config", "diff", *at).out == "tiny:demo: does not run\n"
        try:
            assert llama_runner("run", "little", "--detach", *at).code == 0
            same = llama_runner("config", "diff", *at, "--json")
            assert (same.code, same.json) == (0, []), same
            assert llama_runner("config", "set", "models.tiny:demo.ctx_size", "1024", *at).code == 2
            assert llama_runner("config", "unset", "models.tiny:demo.llama", *at).code == 0
            assert "runs with other options" in llama_runner("config", "diff", *at).out
        finally:
            llama_runner("stop", "--all", *at)


class TestEdit:
    def test_get_set_unset_rename_remove(self, path: Path, llama_runner: Command) -> None:
        def config(*words: object) -> str:
            done = llama_runner("config", *words)
            assert done.code == 0, done
            return done.out

        assert config("get", "models.tiny:demo.port") == "8123\n"
        assert config("set", "models.tiny:demo.port", "81") == f"changed   {path}\n"
        assert "port = 81  # ours" in path.read_text()
        assert config("set", "defaults.llama.cache-ram", "-1") == f"changed   {path}\n"
        assert json.loads(config("get", "defaults.llama")) == {"parallel": 2, "cache-ram": -1}
        assert (
            config("unset", "defaults.llama.cache-ram", "--json")
            == json.dumps({"file": str(path), "changed": True}) + "\n"
        )
        config("rename", "little", "big")
        assert json.loads(config("list", "--json"))[0]["name"] == "big"
        config("remove", "big")
        assert config("list") == ""

    def test_a_change_that_is_a_mistake_leaves_the_file(self, path: Path, llama_runner: Command) -> None:
        says(llama_runner("config", "set", "defaults.port", "x"), 2, "expected a whole number")
        says(llama_runner("config", "unset", "defaults.port"), 2, "does not set defaults.port")
        says(llama_runner("config", "set", "models.b.source", "hf_abcdefghijklmnopqrstu"), 2, "secret")
        assert path.read_text() == FILE

    def test_edit_checks_what_the_editor_wrote(self, path: Path, llama_runner: Command, tmp_path: Path) -> None:
        done = llama_runner("config", "edit", env={"VISUAL": "sed -i s/8123/8124/"})
        assert (done.code, done.out) == (0, f"changed   {path}\n"), done
        broken = llama_runner("config", "edit", env={"VISUAL": "sed -i s/8124/true/", "TMPDIR": str(tmp_path)})
        assert broken.code == 2
        assert "port = 8124" in path.read_text()
        [copy] = tmp_path.glob("llama-runner-*/llama-runner.toml")
        assert f"what you wrote is in {copy}" in broken.err
        forced = llama_runner("config", "edit", "--force", env={"VISUAL": "sed -i s/8124/true/"})
        assert (forced.code, "port = true" in path.read_text()) == (0, True), forced

    def test_without_an_editor_and_a_terminal_nothing_is_opened(self, path: Path, llama_runner: Command) -> None:
        unset = {"VISUAL": "", "EDITOR": ""}
        says(llama_runner("config", "edit", env=unset), 2, "there is no terminal to edit on", "config set")

    def test_an_editor_that_changes_nothing_or_fails(self, path: Path, llama_runner: Command) -> None:
        assert llama_runner("config", "edit", env={"VISUAL": "true"}).err == "nothing changed\n"
        says(llama_runner("config", "edit", env={"VISUAL": "false"}), 5, "the editor failed")
        assert path.read_text() == FILE


def test_the_commands_stand_in_the_help(llama_runner: Command) -> None:
    assert "Configure:\n  config " in llama_runner("--help").out
    listed = llama_runner("config", "--help").out
    for name in ("check", "show", "list", "diff", "schema", "path", "edit", "get", "set", "unset", "remove", "rename"):
        assert f"\n  {name} " in listed
