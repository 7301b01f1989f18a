"""`config import` reads the files of other tools: what becomes of each part."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.config.import_file import FORMATS, detect_format, import_words
from llama_runner.config.import_report import ImportFailed
from llama_runner.core.errors import UsageError
from tests.config.imports import DATA, SECRETS, config_of, imported, items, of_text

FILES = {
    "Modelfile.mario": "modelfile",
    "llama-swap.yaml": "llama-swap",
    "windows.yaml": "llama-swap",
    "presets.ini": "ini",
    "my-bot.yml": "hugind",
    "rerank.yml": "hugind",
    "compose.yaml": "compose",
    "start.sh": "command",
}


@pytest.mark.parametrize(("name", "kind"), FILES.items())
def test_the_format_is_found_by_the_content(name: str, kind: str) -> None:
    assert detect_format((DATA / name).read_text()) == kind
    assert imported(name).format == kind


def test_there_is_a_file_of_each_format_among_the_inputs() -> None:
    assert set(FILES.values()) == set(FORMATS)
    assert {path.name for path in DATA.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_result_is_valid_and_every_part_is_reported_with_its_line(name: str, tmp_path: Path) -> None:
    found = imported(name)
    assert config_of(found, tmp_path).models.keys() == set(found.models)
    lines = (DATA / name).read_text().splitlines()
    for item in found.items:
        assert 1 <= item.line <= len(lines)
        assert bool(item.became) == (item.kind == "taken"), item
        assert item.became or item.note, item
    assert [item.line for item in found.items] == sorted(item.line for item in found.items)


@pytest.mark.parametrize("name", FILES)
def test_no_secret_is_in_the_tables_or_in_the_report(name: str) -> None:
    found = imported(name)
    shown = str(found.to_json())
    assert [secret for secret in SECRETS if secret in shown] == []
    if any(secret in (DATA / name).read_text() for secret in SECRETS):
        assert [item.note for item in found.items if item.kind == "secret"] != []


def test_a_modelfile_gives_one_model_with_its_parameters(tmp_path: Path) -> None:
    found = imported("Modelfile.mario")
    assert found.tables == {
        "models": {
            "mario": {
                "source": "./llama-3.2-3b.gguf",
                "ctx_size": 8192,
                "gpu_layers": 99,
                "sampling": {"temperature": 0.7, "repeat_penalty": 1.1},
                "llama": {"mmap": False},
                "lora": ["./style.gguf"],
                "system": 'You are Mario.\nAnswer with $${HOME} and $$ "quotes".',
            }
        }
    }
    assert config_of(found, tmp_path).models["mario"].system == 'You are Mario.\nAnswer with ${HOME} and $$ "quotes".'
    assert "Jinja" in items(found, "TEMPLATE")[0].note
    assert [item.line for item in items(found, "PARAMETER bogus")] == [21]


@pytest.mark.parametrize(
    ("line", "source"),
    [
        ("FROM hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M"),
        ("from /models/a b.gguf", "/models/a b.gguf"),
        ("FROM .", "./."),
        ("FROM ~/m.gguf", "~/m.gguf"),
        ('FROM "/models/q.gguf"', "/models/q.gguf"),
    ],
)
def test_a_modelfile_names_its_model_as_a_path_or_on_the_hub(line: str, source: str, tmp_path: Path) -> None:
    _, found = of_text(f"{line}\n", tmp_path, name="x")
    assert found.tables["models"]["x"]["source"] == source


def test_a_model_of_ollamas_registry_is_told_where_to_find_it() -> None:
    with pytest.raises(ImportFailed, match=r"left out: llama3\.2 is a model of Ollama") as caught:
        of_text("FROM llama3.2\nPARAMETER num_ctx 4096\n", Path("/"))
    assert "models import --from ollama" in next(
        each.note for each in caught.value.items if each.text.startswith("FROM")
    )


def test_macros_of_llama_swap_are_put_in_and_variables_stay_variables(tmp_path: Path) -> None:
    found = imported("llama-swap.yaml")
    assert found.tables["environment"] == ["HOME"]
    assert found.tables["defaults"] == {"load_timeout": 300, "ttl": "600s"}
    qwen = found.tables["models"]["qwen:8b"]
    assert qwen["source"] == "${HOME}/models/Qwen3-8B-Q4_K_M.gguf"
    assert qwen["llama"] == {
        "cache-type-k": "q8_0",
        "cache-type-v": "q8_0",
        "flash-attn": "on",
        "parallel": 2,
        "jinja": True,
        "mmap": False,
        "mmproj": "/data/mmproj.gguf",
        "-dev": "CUDA0",
        "cache-ram": 0,
    }
    assert (qwen["aliases"], qwen["ttl"], qwen["hidden"], qwen["preload"]) == (
        ["gpt-4o-mini", "small"],
        "300s",
        True,
        True,
    )
    assert qwen["sampling"] == {"temperature": 0.2, "top_k": 20}
    assert qwen["variants"] == {"high": {"template": {"reasoning_effort": "high"}}}
    config = config_of(found, tmp_path)
    assert config.resolved("qwen:8b").source == "/home/me/models/Qwen3-8B-Q4_K_M.gguf"


def test_the_line_of_each_option_of_a_command_in_llama_swap_is_known() -> None:
    found = imported("llama-swap.yaml")
    assert {item.text: item.line for item in found.items if item.line in (18, 19, 20)} == {
        "-m ${HOME}/models/Qwen3-8B-Q4_K_M.gguf": 18,
        **dict.fromkeys(("-ctk q8_0", "-ctv q8_0", "-fa", "-ngl 99"), 19),
        **dict.fromkeys(("-c 16384", "-np 2", "--jinja"), 20),
    }
    assert items(found, "--frobnicate 3")[0].note == "llama-server has no such option"
    assert items(found, "--temp 0.6")[0].note == "set again on line 31"


def test_models_of_llama_swap_in_containers_and_of_other_programs(tmp_path: Path) -> None:
    found = imported("llama-swap.yaml")
    assert found.models == ("qwen:8b", "emb", "docker")
    assert found.tables["models"]["docker"] == {"source": "/mnt/models/x.gguf", "ctx_size": "auto"}
    assert found.tables["models"]["emb"]["pin"] is True
    assert "whisper is left out" in next(item.note for item in found.items if item.line == 41)
    assert items(found, "preload: nope")[0].note == "there is no model nope"
    config_of(found, tmp_path)


def test_windows_paths_and_quotation_are_kept() -> None:
    coder = imported("windows.yaml").tables["models"]["coder"]
    assert coder == {
        "source": "D:\\AI models\\Qwen2.5-Coder-7B-Q4_K_M.gguf",
        "ctx_size": "auto",
        "gpu_layers": "all",
        "ttl": 0,
        "template": {"enable_thinking": False},
    }


def test_presets_of_llama_cpp_keep_the_name_that_clients_use(tmp_path: Path) -> None:
    found = imported("presets.ini")
    gemma, llama = (found.tables["models"][name] for name in found.models)
    assert gemma["source"] == found.models[0] == "ggml-org/gemma-3-4b-it-GGUF:Q8_0"
    assert (gemma["ctx_size"], gemma["preload"], gemma["llama"]["jinja"]) == (8192, True, True)
    assert found.models[1] == "llama3.1:8b"
    assert llama["aliases"] == ["l3", "llama3", "llama3.1:8B"]
    assert (llama["gpu_layers"], llama["llama"]) == (8, {"flash-attn": "on", "cache-ram": 0, "mmap": False})
    assert config_of(found, tmp_path).model("llama3.1:8B").name == "llama3.1:8b"


def test_a_value_of_an_ini_file_ends_where_llama_cpp_ends_it(tmp_path: Path) -> None:
    _, found = of_text("[a]\r\nmodel = /m/a.gguf\r\nchat-template = x#y ; z\r\n  temp = 0.5\r\n", tmp_path)
    assert found.tables["models"]["a"]["llama"] == {"chat-template": "x"}
    assert items(found, "chat-template")[0].note == "llama.cpp ends the value at # or ;"
    assert "indented" in items(found, "temp")[0].note


def test_hugind_of_the_first_generation(tmp_path: Path) -> None:
    found = imported("my-bot.yml")
    bot = found.tables["models"]["my-bot"]
    assert bot["source"] == "~/.hugind/TheBloke/m/m.gguf"
    assert (bot["ctx_size"], bot["threads"], bot["ttl"], bot["port"]) == (4096, 8, "600s", 8080)
    assert (bot["llama"]["mlock"], bot["llama"]["kv-offload"], bot["llama"]["parallel"]) == (True, False, 4)
    assert "mmap" not in bot["llama"]
    words = config_of(found, tmp_path).resolved("my-bot").words
    assert words[words.index("--override-kv") + 1] == "tokenizer.ggml.add_bos_token=bool:false"
    assert words[words.index("--lora-scaled") + 1] == f"{tmp_path}/b.gguf:0.5"


def test_hugind_of_the_second_generation() -> None:
    assert imported("rerank.yml").tables["models"] == {
        "ranker": {
            "source": "../models/reranker.gguf",
            "ctx_size": "auto",
            "gpu_layers": "all",
            "port": 9090,
            "system": "You are a helpful assistant.",
            "template": {"enable_thinking": True},
            "llama": {
                "reasoning-budget": 512,
                "-dev": "CUDA0,CUDA1",
                "tensor-split": "3,1",
                "repack": False,
                "parallel": 2,
                "pooling": "rank",
                "flash-attn": "on",
                "kv-unified": True,
                "warmup": False,
            },
            "sampling": {"temperature": 0},
        }
    }


def test_services_of_compose_take_ports_volumes_and_variables() -> None:
    found = imported("compose.yaml")
    assert found.tables["models"] == {
        "chat": {
            "source": "./models/qwen.gguf",
            "ctx_size": 8192,
            "gpu_layers": 99,
            "host": "127.0.0.1",
            "port": 9000,
            "llama": {"parallel": 2},
        },
        "embed": {
            "source": "./models/nomic.gguf",
            "ctx_size": "auto",
            "port": 9001,
            "llama": {"embedding": True},
        },
    }
    assert "volume 'data'" in items(found, "lost")[0].note
    assert "runs no llama-server" in items(found, "web")[0].note


def test_a_script_may_start_several_servers() -> None:
    found = imported("start.sh")
    assert found.tables["models"]["Qwen3-8B"]["template"] == {"enable_thinking": False}
    assert found.tables["models"]["a"] == {"source": "~/m/a.gguf", "ctx_size": "auto", "port": 9001}
    assert items(found, "--draft-max 8")[0].became == "models.Qwen3-8B.llama.spec-draft-n-max = 8"


def test_a_command_line_becomes_a_model() -> None:
    found = import_words(
        ["llama-server", "-m", "/m/a.gguf", "-c", "8192", "--temp", "0.5", "-a", "x,y", "-fa", "-np", "4"]
    )
    assert found.tables == {
        "models": {
            "x": {
                "source": "/m/a.gguf",
                "aliases": ["y"],
                "ctx_size": 8192,
                "sampling": {"temperature": 0.5},
                "llama": {"flash-attn": "on", "parallel": 4},
            }
        }
    }


@pytest.mark.parametrize(
    ("words", "table"),
    [
        ("-hf ORG/M:Q4_K_M -c 0", {"source": "ORG/M:Q4_K_M", "ctx_size": "auto"}),
        ("-hf ORG/M -hff m.gguf", {"source": "ORG/M", "filename": "m.gguf", "ctx_size": "auto"}),
        (
            "-mu https://huggingface.co/O/M/resolve/v1/a/m.gguf?download=true",
            {"source": "O/M@v1", "filename": "a/m.gguf", "ctx_size": "auto"},
        ),
        ("--model=/m/a.gguf --ctx_size=5", {"source": "/m/a.gguf", "ctx_size": 5}),
        ("-m /m/a.gguf -c 1 -c 2", {"source": "/m/a.gguf", "ctx_size": 2}),
        ("-m /m/a.gguf -c 5 -t -1 -ngl -1", {"source": "/m/a.gguf", "ctx_size": 5, "gpu_layers": "auto"}),
        ("-m /m/a.gguf -c 5 --lora /l/a.gguf --lora /l/b.gguf", {"lora": ["/l/a.gguf", "/l/b.gguf"]}),
        ("-m /m/a.gguf -c 5 -ot a=CPU -ot b=CPU", {"llama": {"override-tensor": "a=CPU,b=CPU"}}),
        ("-m /m/a.gguf -c 5 -l 1+1 -l 2-1", {"llama": {"logit-bias": ["1+1", "2-1"]}}),
        ("-m /m/a.gguf -c 5 --no-mmproj", {"projector": False}),
        ("-m /m/a.gguf -c 5 -nkvo --no-webui", {"llama": {"kv-offload": False, "ui": False}}),
        ("-m /m/a.gguf -c 5 --seed -1 --typical 0.9", {"sampling": {"seed": -1, "typical_p": 0.9}}),
        ("-m /m/a.gguf -c 5 --cache-ram -1", {"llama": {"cache-ram": -1}}),
        ("-m /m/a.gguf -c 5 --api-key-file k --ssl-key-file s", {"api_key_file": "k", "tls_key": "s"}),
    ],
)
def test_options_of_llama_server_become_keys(words: str, table: dict[str, object]) -> None:
    (found,) = import_words(["llama-server", *words.split()], target=Path.cwd()).tables["models"].values()
    assert table.items() <= found.items()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("llama-server --fim-qwen-7b-default", "llama-server's own choice"),
        ("llama-server -dr ai/smollm2", "Docker's registry"),
        ("llama-server -mu https://example.org/m.gguf", "outside the Hub"),
        ("llama-server --models-dir /m", "a router"),
        ("llama-server", "it names no model"),
        ("vllm serve x", "no llama-server"),
    ],
)
def test_what_cannot_be_declared_is_an_error_with_the_reason(words: str, text: str) -> None:
    with pytest.raises(ImportFailed, match=text):
        import_words(words.split())


def test_relative_paths_become_absolute_where_our_file_is_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM ./m.gguf\nADAPTER a.gguf\n")
    from llama_runner.config.import_file import import_file

    (table,) = import_file(tmp_path / "Modelfile", target="/elsewhere").tables["models"].values()
    assert table == {"source": str(tmp_path / "m.gguf"), "lora": [str(tmp_path / "a.gguf")]}


def test_a_format_that_is_said_counts_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match=r"hugind: there is no model\.path"):
        imported("compose.yaml", format="hugind")
    with pytest.raises(UsageError, match="no format 'toml'"):
        imported("compose.yaml", format="toml")
    with pytest.raises(UsageError, match="format of the file is not known"):
        of_text("hello: world\n", tmp_path)


def test_a_name_is_for_a_file_with_one_model(tmp_path: Path) -> None:
    assert imported("my-bot.yml", name="mine").models == ("mine",)
    assert imported("Modelfile.mario", name="a,b").models == ("a-b",)
    for name in ("compose.yaml", "llama-swap.yaml", "windows.yaml", "start.sh"):
        with pytest.raises(UsageError, match="--name is for one model"):
            imported(name, name="mine")


def test_a_parameter_that_is_a_macro_has_its_value(tmp_path: Path) -> None:
    text = (
        "macros: {t: 0.5, k: 1}\nmodels:\n  a:\n    macros: {k: 20}\n    cmd: llama-server -m /m --top-k ${k}\n"
        "    filters: {setParams: {temperature: '${t}', top_p: '${absent}'}}\n"
    )
    _, found = of_text(text, tmp_path)
    assert found.tables["models"]["a"]["sampling"] == {"top_k": 20, "temperature": 0.5}
    assert [item.text for item in found.not_taken] == ["top_p: ${absent}"]


def test_a_variant_whose_macro_does_not_exist_is_not_taken(tmp_path: Path) -> None:
    text = 'models: {a: {cmd: llama-server -m /m, filters: {setParamsByID: {"${B}:x": {temperature: 1}}}}}'
    _, found = of_text(text, tmp_path)
    assert "variants" not in found.tables["models"]["a"]
    assert [item.note for item in found.not_taken] == ["there is no macro B"]


def test_a_command_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="cmd is no text"):
        of_text("models: {a: {cmd: [llama-server, -m, x]}}", tmp_path)


def test_a_value_that_is_no_number_is_not_taken(tmp_path: Path) -> None:
    _, found = of_text("llama-server -m /m.gguf -np two --temp hot -c many --port x -ngl some", tmp_path)
    assert found.tables["models"]["m"] == {"source": "/m.gguf", "ctx_size": "auto"}
    assert [item.note.partition(" ")[0] for item in found.not_taken] == ["expected"] * 5
