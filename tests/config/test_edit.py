"""A configuration file is changed with its comments, its order and its mode, and never to one with new mistakes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llama_runner.config import edit
from llama_runner.config.config import Config
from llama_runner.config.errors import ConfigError
from llama_runner.config.key_path import read_key
from llama_runner.config.runner_configuration import ConfigFile
from llama_runner.core.errors import LlamaRunnerError, StoreError, UsageError
from tests.config.files import Write

TEXT = """\
# the models of this machine

[defaults]   # for all
threads = 2  # cores

# the small one
[models."qwen:8b"]
source = "ORG/MODEL"   # from the Hub
port = 81
llama = { parallel = 2, jinja = true }  # for many

  # faster
  [models."qwen:8b".variants.fast]
  sampling = { temperature = 0.5 }

# the large one
[models.large]
source = "ORG/LARGE"
fallback = ["qwen:8b"]
# the end
"""


@pytest.fixture
def path(write: Write) -> Path:
    return write(TEXT)


def lines(change: edit.Change) -> tuple[list[str], list[str]]:
    """Return the lines that a change removes and adds."""
    before, after = change.before.splitlines(), change.after.splitlines()
    return [each for each in before if each not in after], [each for each in after if each not in before]


@pytest.mark.parametrize(
    ("key", "value", "removed", "added"),
    [
        ("defaults.threads", "3", ["threads = 2  # cores"], ["threads = 3  # cores"]),
        ("models.qwen:8b.port", "0", ["port = 81"], ["port = 0"]),
        (
            'models."qwen:8b".source',
            "a b",
            ['source = "ORG/MODEL"   # from the Hub'],
            ['source = "a b"   # from the Hub'],
        ),
        ("models.large.aliases", "big, huge", [], ['aliases = ["big", "huge"]']),
        ("models.large.ttl", "10m", [], ['ttl = "10m"']),
        ("models.large.pin", "true", [], ["pin = true"]),
        ("defaults.ctx_size", "auto", [], ['ctx_size = "auto"']),
        ("models.large.system", "5", [], ['system = "5"']),
        ("models.new.source", "./m.gguf", [], ["[models.new]", 'source = "./m.gguf"']),
        ("gateway.memory.host", "80%", [], ["[gateway.memory]", 'host = "80%"']),
        (
            "models.qwen:8b.llama.parallel",
            "4",
            ["llama = { parallel = 2, jinja = true }  # for many"],
            ["llama = { parallel = 4, jinja = true }  # for many"],
        ),
    ],
)
def test_set_changes_one_line(path: Path, key: str, value: str, removed: list[str], added: list[str]) -> None:
    change = edit.set_typed(path, key, value)
    assert lines(change) == (removed, added)
    assert path.read_text() == change.after
    assert edit.set_typed(path, key, value).is_none


def test_get_returns_what_the_file_says(path: Path) -> None:
    assert edit.get_value(path, "defaults.threads") == 2
    assert edit.get_value(path, "models.qwen:8b.llama") == {"parallel": 2, "jinja": True}
    assert list(edit.get_value(path, "models")) == ["qwen:8b", "large"]
    with pytest.raises(UsageError, match=r"does not set models\.large\.port"):
        edit.get_value(path, "models.large.port")


@pytest.mark.parametrize(
    ("key", "removed"),
    [
        ("defaults.threads", ["threads = 2  # cores"]),
        ("models.qwen:8b.port", ["port = 81"]),
        ("models.large.fallback", ['fallback = ["qwen:8b"]']),
        (
            "models.qwen:8b.variants.fast",
            ["  # faster", '  [models."qwen:8b".variants.fast]', "  sampling = { temperature = 0.5 }"],
        ),
        ("defaults", ["[defaults]   # for all", "threads = 2  # cores"]),
    ],
)
def test_unset_removes_a_key_or_a_table_and_nothing_else(path: Path, key: str, removed: list[str]) -> None:
    change = edit.unset(path, key)
    assert lines(change) == (removed, [])


def test_unset_removes_a_key_of_an_inline_table(path: Path) -> None:
    edit.unset(path, "models.qwen:8b.llama.parallel")
    assert Config.load(path).models["qwen:8b"].llama == {"jinja": True}
    assert "# for many" in path.read_text()


def test_remove_takes_a_model_with_its_comment_and_leaves_those_of_the_others(path: Path) -> None:
    change = edit.remove(path, "large")
    assert lines(change) == (
        ["# the large one", "[models.large]", 'source = "ORG/LARGE"', 'fallback = ["qwen:8b"]'],
        [],
    )
    assert change.after.endswith("# the end\n")


def test_remove_of_a_model_that_others_need_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no model 'qwen:8b'"):
        edit.remove(path, "qwen:8b")
    assert path.read_text() == TEXT
    with pytest.raises(UsageError, match="no model called 'lrge'") as caught:
        edit.remove(path, "lrge")
    assert caught.value.hint == "did you mean large?"


def test_rename_changes_every_header_and_what_names_the_model(path: Path) -> None:
    change = edit.rename(path, "qwen:8b", "qwen")
    assert change.after == TEXT.replace('models."qwen:8b"', "models.qwen").replace('["qwen:8b"]', '["qwen"]')
    assert edit.rename(path, "qwen", 'a "b"').after == TEXT.replace('"qwen:8b"]\ns', '"a \\"b\\""]\ns').replace(
        '"qwen:8b".v', '"a \\"b\\"".v'
    ).replace('["qwen:8b"]', '["a \\"b\\""]')


@pytest.mark.parametrize(
    "text",
    [
        'models.a.source = "x" # c\nmodels.a.port = 1\n',
        '[models]\na.source = "x"\na . port = 1\n',
        '[models]\na = { source = "x", port = 1 }\n',
        '[ models . "a" ] # c\nsource = "x"\nport = 1\n',
        "[models.'a']\nsource = 'x'\nport = 1\n",
    ],
)
def test_other_ways_to_write_a_model_are_renamed_changed_and_removed_too(write: Write, text: str) -> None:
    path = write(text)
    edit.set_value(path, "models.a.port", 2)
    edit.rename(path, "a", "b.c")
    model = Config.load(path).models["b.c"]
    assert (model.source, model.options) == ("x", {"port": 2})
    assert ("# c" in path.read_text()) == ("# c" in text)
    edit.remove(path, "b.c")
    assert not Config.load(path).models


def test_rename_to_a_name_that_is_taken_or_impossible_is_refused(path: Path) -> None:
    for name in ("large", "a,b", "", "a\n"):
        with pytest.raises(UsageError):
            edit.rename(path, "qwen:8b", name)
    assert path.read_text() == TEXT


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("defaults.port", "x", "expected a whole number"),
        ("defaults.prt", "1", "there is no such key"),
        ("models.large.api_key", "abcdefg", "a key does not belong into this file"),
        ("models.large.source.x", "1", "source is not a table"),
        ("models.qwen:8b.aliases", "large", "is a name of"),
        ("a..b", "1", "is not a key"),
        ("", "1", "is not a key"),
        ("defaults.", "1", "is not a key"),
        ('defaults."\\x"', "1", "is not a key"),
    ],
)
def test_a_change_with_a_mistake_is_refused_and_the_file_stays(path: Path, key: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        edit.set_typed(path, key, value)
    assert path.read_text() == TEXT


def test_one_mistake_of_two_can_be_mended(write: Write) -> None:
    path = write('[models.a]\nsource = "x"\nport = "1"\nthreads = "2"\n')
    edit.set_typed(path, "models.a.port", "1")
    with pytest.raises(ConfigError, match="ctx_size"):
        edit.set_typed(path, "models.a.ctx_size", "x")
    edit.set_typed(path, "models.a.threads", "2")
    assert Config.load(path).models["a"].options == {"port": 1, "threads": 2}


def test_a_model_of_an_included_file_is_changed_there(write: Write) -> None:
    path = write('include = ["b.toml"]\n')
    other = write('[models.b]\nsource = "x"\n[defaults]\nport = 5\n', "b.toml")
    assert edit.set_typed(path, "models.b.port", "3").path == other
    assert edit.set_typed(path, "defaults.port", "6").path == other
    assert edit.set_typed(path, "defaults.threads", "6").path == path
    assert edit.get_value(path, "models.b.port") == 3
    edit.rename(path, "b", "c")
    assert list(Config.load(path).models) == ["c"]


def test_mode_and_links_stay(path: Path, tmp_path: Path) -> None:
    path.chmod(0o664)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    edit.set_typed(link, "defaults.threads", "7")
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o664
    assert Config.load(path).defaults.options == {"threads": 7}
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_windows_line_ends_stay(write: Write) -> None:
    path = write(TEXT.replace("\n", "\r\n").encode())
    edit.set_typed(path, "defaults.threads", "3")
    edit.rename(path, "large", "huge")
    content = path.read_bytes()
    assert content.count(b"\r\n") == content.count(b"\n") == TEXT.count("\n")


def _set_many(path: Path, begin: int) -> None:
    for number in range(begin, begin + 10):
        edit.set_value(path, f"models.m{number}.source", "x/y")


def test_two_processes_that_change_a_file_lose_nothing(write: Write) -> None:
    path = write("")
    others = [multiprocessing.get_context("spawn").Process(target=_set_many, args=(path, at)) for at in (0, 10)]
    for each in others:
        each.start()
    for each in others:
        each.join(60)
        assert each.exitcode == 0
    assert len(Config.load(path).models) == 20


def test_a_change_by_an_editor_in_between_is_not_overwritten(path: Path) -> None:
    before = path.read_text()
    path.write_text("# mine\n")
    with pytest.raises(StoreError, match="was changed by another process"):
        edit.replace_text(path, before + "\n# more\n", before=before)
    assert path.read_text() == "# mine\n"


@pytest.mark.parametrize(
    "change", [lambda path: edit.set_typed(path, "defaults.port", "1"), lambda path: edit.unset(path, "defaults")]
)
def test_a_file_that_is_gone_or_no_toml_is_told(write: Write, change: Callable[[Path], object]) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        change(write("").parent / "gone.toml")
    with pytest.raises(ConfigError, match="not TOML"):
        change(write("a ="))


def test_a_new_file_replaces_none_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "llama-runner.toml"
    edit.write_new(path, "# a\n")
    with pytest.raises(UsageError, match="exists"):
        edit.write_new(path, "# b\n")
    edit.write_new(path, "# b\n", force=True)
    with pytest.raises(ConfigError):
        edit.write_new(path, "x = 1", force=True)
    assert path.read_text() == "# b\n"


def test_where_nothing_can_be_written_the_error_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LlamaRunnerError, match="cannot write"):
        edit.write_new(tmp_path / "file" / "x.toml", "")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a.b", ("a", "b")),
        ('models."a.b".c', ("models", "a.b", "c")),
        ("models.'a\"b'.c", ("models", 'a"b', "c")),
        ("models.qwen:8b", ("models", "qwen:8b")),
        ("models.Qwen2.5.port", ("models", "Qwen2.5", "port")),
        ('"a\\u00e4" . b', ("aä", "b")),
    ],
)
def test_keys_are_read_as_in_the_file_and_names_need_no_quotes(text: str, keys: tuple[str, ...]) -> None:
    assert read_key(text, ["Qwen2.5"]) == keys


def test_several_changes_build_on_each_other_also_where_the_first_leaves_an_empty_file(path: Path) -> None:
    path.write_text('models.x.hf_model = "a/b"\n')
    changes = [edit.KeyChange("models.x", is_unset=True), edit.KeyChange("models.y.hf_model", "a/c")]
    [change] = edit.change_keys(path, changes)
    assert list(Config.load(path).models) == ["y"]
    assert change.after == path.read_text()


@pytest.fixture
def more(path: Path) -> Path:
    """Return a file that the configuration includes."""
    path.write_text('include = ["more.toml"]\n[models.x]\nsource = "a/b"\n')
    (more := path.with_name("more.toml")).write_text('[models.y]\nsource = "a/c"\n')
    return more


IN_BOTH = [edit.KeyChange("models.x.port", 81), edit.KeyChange("models.y.port", 82)]


def test_no_file_is_changed_where_another_was_changed_meanwhile(path: Path, more: Path) -> None:
    def changes() -> Iterator[edit.KeyChange]:
        yield from IN_BOTH
        more.write_text("# mine\n")  # by an editor

    before = path.read_text()
    with pytest.raises(StoreError, match="changed by another process"):
        edit.change_keys(path, changes())
    assert (path.read_text(), more.read_text()) == (before, "# mine\n")


def test_a_change_that_is_made_for_a_revision_is_not_made_of_another_text(path: Path) -> None:
    def changes() -> Iterator[edit.KeyChange]:
        path.write_text("# mine\n")  # by an editor
        yield edit.KeyChange("defaults.port", 81)

    file = ConfigFile(path)
    with pytest.raises(StoreError, match="changed by another process"):
        file.change(changes(), apply=True, revision=file.read().revision)
    assert path.read_text() == "# mine\n"
