"""Which layer decides: variant, model, its presets, the profile, the defaults."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llama_runner.config.config import Config
from llama_runner.config.layers import Resolved
from tests.config.files import Write, write_in


def words_of(resolved: Resolved) -> dict[str, str]:
    """Return options of llama-server with one value each."""
    words = list(resolved.words)
    return dict(zip(words[::2], words[1::2], strict=True))


def test_the_nearest_layer_that_sets_a_key_counts_and_is_named(write: Write) -> None:
    path = write("""
[models.m]
source = "./m.gguf"
preset = "near"
port = 1
llama = { parallel = 1 }
[models.m.variants.v]
sampling = { temperature = 1 }
[presets.near]
preset = "far"
port = 2
threads = 2
llama = { parallel = 2, cache-ram = 2 }
sampling = { temperature = 2, top_k = 2 }
[presets.far]
threads = 3
ctx_size = 3
profile = "tuned"
[defaults]
ctx_size = 5
host = "::1"
ttl = 60
llama = { n-cpu-moe = 5 }
""")
    resolved = Config.load(path).resolved("m:v", {"tuned": {"--threads": "4", "--batch-size": "4"}}.__getitem__)
    assert {key: each.origin for key, each in resolved.settings.items()} == {
        "sampling.temperature": "variant v",
        "port": "model",
        "llama.parallel": "model",
        "threads": "preset near",
        "llama.cache-ram": "preset near",
        "sampling.top_k": "preset near",
        "ctx_size": "preset far",
        "profile": "preset far",
        "llama.batch-size": "profile tuned",
        "host": "defaults",
        "ttl": "defaults",
        "llama.n-cpu-moe": "defaults",
    }
    assert (resolved.source, resolved.names, resolved.get("ttl")) == (str(path.parent / "m.gguf"), ("m:v",), 60)
    server = resolved.server
    assert (server.port, server.threads, server.ctx_size, server.host, server.names) == (1, 2, 3, "::1", ("m:v",))
    assert words_of(resolved) == {
        "--parallel": "1",
        "--cache-ram": "2",
        "--batch-size": "4",
        "--n-cpu-moe": "5",
        "--temp": "1",
        "--top-k": "2",
    }


def test_a_model_with_a_preset_does_not_take_the_one_of_the_defaults(write: Write) -> None:
    path = write("""
[defaults]
preset = "a"
[models.x]
source = "m"
[models.y]
source = "m"
preset = "b"
[presets.a]
port = 1
[presets.b]
threads = 2
""")
    config = Config.load(path)
    assert (config.resolved("x").values, config.resolved("y").values) == ({"port": 1}, {"threads": 2})


def test_a_chosen_profile_replaces_the_one_of_the_file(write: Write) -> None:
    config = Config.load(write('[models.x]\nsource = "x"\nprofile = "a"'))
    saved = {"a": {"--threads": "1"}, "b": {"--threads": "2"}}.__getitem__
    assert config.resolved("x", saved).values == {"threads": 1}
    assert config.resolved("x", saved, chosen="b").values == {"threads": 2}
    assert config.resolved("x").values == {}


def test_how_a_model_is_named_is_never_taken_from_other_layers(write: Write) -> None:
    config = Config.load(write('[models.x]\ngguf_path = "m.gguf"\n[models.y]\ndemo = true\nport = 1\n'))
    assert config.resolved("x").source is None
    assert config.resolved("x").keywords == {"gguf_path": config.path.parent / "m.gguf"}
    assert config.resolved("y").keywords == {"demo": True}


def test_arguments_of_the_template_are_put_together_key_by_key(write: Write) -> None:
    path = write("""
[defaults.template]
a = 1
b = 1
[models.x]
source = "x"
template = { b = { c = [2] } }
[models.x.variants.v]
template = { d = "ü" }
""")
    [flag, said] = Config.load(path).resolved("x:v").words
    assert (flag, json.loads(said)) == ("--chat-template-kwargs", {"a": 1, "b": {"c": [2]}, "d": "ü"})


def test_values_of_llama_become_words(write: Write) -> None:
    path = write("""
[models.x]
source = "x"
llama = { jinja = true, webui = false, override-kv = ["a=int:1", "b=int:2"], "-sm" = "row", x = -1.5 }
sampling = { temperature = 0.30000000000000004, seed = 4294967295, top_p = 1e-7 }
""")
    assert Config.load(path).resolved("x").words == (
        *("-sm", "row", "--jinja", "--override-kv", "a=int:1", "--override-kv", "b=int:2", "--no-webui", "--x", "-1.5"),
        *("--seed", "4294967295", "--temp", "0.3", "--top-p", "1e-07"),
    )


def test_an_adapter_is_a_name_of_its_own(write: Write) -> None:
    path = write('[models.x]\nsource = "x"\n[models.x.adapters.l]\npath = "a,b.gguf"\nscale = 0.5\n')
    config = Config.load(path)
    assert config.resolved("x").words == ()
    resolved = config.resolved("x:l")
    assert (resolved.names, resolved.words) == (("x:l",), ())
    assert resolved.keywords["lora"] == (f"l={path.parent}/a,b.gguf:0.5",)
    assert resolved.settings["lora"].origin == "adapter l"


def test_a_source_is_relative_to_the_file_that_declares_it_and_a_name_stays_a_name(write: Write) -> None:
    path = write("""
[models.file]
source = "there.gguf"
[models.later]
source = "./later"
[models.home]
source = "~/m.gguf"
[models.hub]
source = "ORG/MODEL:Q8_0"
[models.url]
source = "https://example.org/m.gguf"
""")
    (path.parent / "there.gguf").touch()
    config = Config.load(path)
    assert {name: config.resolved(name).source for name in config.models} == {
        "file": str(path.parent / "there.gguf"),
        "later": str(path.parent / "later"),
        "home": str(Path("~/m.gguf").expanduser()),
        "hub": "ORG/MODEL:Q8_0",
        "url": "https://example.org/m.gguf",
    }


VALUES = st.integers(1, 9)
LAYER = st.fixed_dictionaries(
    {},
    optional={
        "port": VALUES,
        "threads": VALUES,
        "ttl": VALUES,
        "llama": st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2),
        "sampling": st.dictionaries(st.sampled_from(["top_k", "seed"]), VALUES, max_size=2),
        "template": st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2),
    },
)
PROFILE = st.dictionaries(st.sampled_from(["--threads", "--a"]), VALUES.map(str), max_size=2)


def toml(value: Any) -> str:
    """Return a value as TOML; strings of JSON are strings of TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


def flat(layer: dict[str, Any]) -> dict[str, Any]:
    parts = {name: each for name, each in layer.items() if isinstance(each, dict)}
    rest = {name: each for name, each in layer.items() if name not in parts}
    return rest | {f"{name}.{key}": each for name, part in parts.items() for key, each in part.items()}


@settings(max_examples=200, deadline=None)
@given(LAYER, st.lists(LAYER, max_size=3), PROFILE, LAYER, LAYER, st.booleans())
def test_for_any_layers_the_first_that_sets_a_key_counts(
    model: dict[str, Any],
    presets: list[dict[str, Any]],
    profile: dict[str, str],
    defaults: dict[str, Any],
    variant: dict[str, Any],
    of_defaults: bool,
) -> None:
    variant = {name: each for name, each in variant.items() if name in ("sampling", "template")}
    tables = {'models."m"': {**model, "source": "x"}, "defaults": defaults, 'models."m".variants.v': variant}
    tables |= {f"presets.p{number}": each for number, each in enumerate(presets)}
    chain = ["defaults" if of_defaults else 'models."m"', *(f"presets.p{number}" for number in range(len(presets)))]
    tables = {name: dict(table) for name, table in tables.items()}
    for name, after in itertools.pairwise(chain):
        tables[name]["preset"] = after.removeprefix("presets.")
    tables["defaults"]["profile"] = "saved"
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )
    saved = {("threads" if key == "--threads" else "llama.a"): value for key, value in profile.items()}
    expected: dict[str, Any] = {"profile": "saved"}
    for layer in (flat(variant), flat(model), *map(flat, presets), saved, flat(defaults)):
        expected = {**layer, **expected}
    with tempfile.TemporaryDirectory() as directory:
        config = Config.load(write_in(Path(directory))(text))
    resolved = config.resolved("m:v", lambda _name: profile)
    assert {key: str(each.value) for key, each in resolved.settings.items()} == {
        key: f"{value}.0" if key == "ttl" else str(value) for key, value in expected.items()
    }
