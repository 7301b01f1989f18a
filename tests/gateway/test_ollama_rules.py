"""The rules by which programs that know Ollama accept a server, each as a check of its own.

Their code is not here: what a test does is what the program does with an answer.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import json
import re
import socket
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import langchain_ollama
import ollama
import pytest

from llama_runner.demo import EXAMPLES
from tests.gateway.conftest import Running

QUESTION, ANSWER = EXAMPLES[0]
ASKED: Any = [{"role": "user", "content": QUESTION}]


def get(gateway: Running, path: str, **headers: str) -> Any:
    status, answer = gateway.get(path, **headers)
    assert status == 200, answer
    return answer


def post(gateway: Running, path: str, body: Any, **headers: str) -> Any:
    status, answer = gateway.post(path, body, **headers)
    assert status == 200, answer
    return answer


def slots_are_free(gateway: Running) -> bool:
    return not any(slot["is_processing"] for slot in get(gateway, "/models/demo/slots"))


@contextmanager
def closed(model: Any) -> Iterator[Any]:
    """Close the connections of a model of LangChain, which keeps them."""
    yield model
    model._client.close()


# Ollama's own command line


def test_the_command_line_of_ollama_sees_that_a_server_is_there(ollama_gateway: Running) -> None:
    assert httpx.head(ollama_gateway.url).status_code == 200
    assert httpx.get(ollama_gateway.url).text == "Ollama is running"
    assert httpx.head(f"{ollama_gateway.url}/api/version").status_code == 200
    assert httpx.head(f"{ollama_gateway.url}/api/tags").status_code == 200


def test_ollama_run_shows_loads_and_chats(ollama_gateway: Running) -> None:
    """It sends show, then an empty prompt, then messages; it slices digests and reads each line as JSON."""
    post(ollama_gateway, "/api/show", {"model": "demo"})
    assert post(ollama_gateway, "/api/generate", {"model": "demo"})["done_reason"] == "load"
    body = {"model": "demo", "messages": ASKED, "options": {"temperature": 0}}
    with httpx.stream("POST", f"{ollama_gateway.url}/api/chat", json=body, timeout=120) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert "".join(line["message"]["content"] for line in lines) == ANSWER
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    for name in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"):
        assert type(lines[-1][name]) is int
    for listed in (*get(ollama_gateway, "/api/tags")["models"], *get(ollama_gateway, "/api/ps")["models"]):
        assert re.fullmatch("[0-9a-f]{12,}", listed["digest"])
        assert set(listed["digest"]) != {"0"}


@pytest.mark.parametrize("path", ["/api/me", "/api/experimental/web_search", "/api/nowhere"])
def test_routes_of_the_cloud_are_errors_in_json(ollama_gateway: Running, path: str) -> None:
    answer = httpx.post(ollama_gateway.url + path, json={})
    assert answer.status_code == 404
    assert isinstance(answer.json()["error"], str)


# Open WebUI


def test_open_webui_reads_the_version_as_numbers(ollama_gateway: Running) -> None:
    version = get(ollama_gateway, "/api/version")["version"]
    assert tuple(map(int, re.sub(r"^v|-.*", "", version).split("."))) >= (0, 6, 4)


def test_open_webui_looks_a_name_up_with_its_tag_and_finds_it_in_the_list(ollama_gateway: Running) -> None:
    models = {each["model"]: each for each in get(ollama_gateway, "/api/tags")["models"]}
    assert "demo:latest" in models
    chat = {"model": "demo:latest", "messages": ASKED, "stream": False, "options": {"temperature": 0}}
    assert post(ollama_gateway, "/api/chat", chat)["message"]["content"] == ANSWER
    for each in get(ollama_gateway, "/api/ps")["models"]:
        expires = dt.datetime.fromisoformat(re.sub(r"Z$", "+00:00", each["expires_at"]))
        assert int(expires.timestamp()) > 0
        assert each["name"] in models


def test_open_webui_unloads_by_an_empty_prompt(ollama_gateway: Running) -> None:
    post(ollama_gateway, "/api/generate", {"model": "demo", "prompt": ""})
    for each in get(ollama_gateway, "/api/ps")["models"]:
        post(ollama_gateway, "/api/generate", {"model": each["name"], "prompt": "", "keep_alive": 0})
    assert get(ollama_gateway, "/api/ps") == {"models": []}


def test_open_webui_may_name_its_user_and_its_chat(ollama_gateway: Running) -> None:
    headers = {"X-OpenWebUI-User-Id": "7", "X-OpenWebUI-Chat-Id": "abc", "X-OpenWebUI-User-Email": "a@b.example"}
    chat = {"model": "demo", "messages": ASKED, "stream": False}
    assert post(ollama_gateway, "/api/chat", chat, **headers)["done"]


# Copilot, Continue, litellm


def test_promise_16_copilot_finds_version_model_info_and_capabilities(ollama_gateway: Running) -> None:
    version = get(ollama_gateway, "/api/version", Authorization="Bearer ")["version"]
    assert [int(part) for part in version.split(".")] >= [0, 6, 4]
    shown = {}
    for each in get(ollama_gateway, "/api/tags", Authorization="Bearer ")["models"]:
        about = post(ollama_gateway, "/api/show", {"model": each["model"]}, Authorization="Bearer ")
        architecture = about["model_info"]["general.architecture"]
        shown[each["model"]] = (
            about["model_info"]["general.basename"],
            about["model_info"][f"{architecture}.context_length"],
            about["capabilities"],
        )
    assert "tools" in shown["tools:latest"][2]
    assert "tools" not in shown["demo:latest"][2]
    assert all(name and context > 0 for name, context, _ in shown.values())
    body = {"model": "demo:latest", "messages": ASKED, "max_tokens": 4}
    assert post(ollama_gateway, "/v1/chat/completions", body, Authorization="Bearer ")["choices"]


def test_continue_reads_the_parameters_and_the_template(ollama_gateway: Running) -> None:
    post(ollama_gateway, "/api/generate", {"model": "demo"})
    shown = post(ollama_gateway, "/api/show", {"name": "pirate"})
    rows = [re.match(r'^(\S+)\s+((?:".*")|\S+)$', line) for line in shown["parameters"].split("\n")]
    found = {row[1]: row[2] for row in rows if row}
    assert len(found) == len(rows)
    assert found["num_ctx"] == "1024"
    assert float(found["temperature"]) == 0.5
    assert ".Suffix" not in shown["template"]


def test_litellm_takes_the_first_context_length_and_looks_for_tools_in_the_template(ollama_gateway: Running) -> None:
    for name, calls in (("tools", True), ("demo", False)):
        shown = post(ollama_gateway, "/api/show", {"name": name})
        assert next(value for key, value in shown["model_info"].items() if "context_length" in key) == 1024
        assert ("tools" in shown["template"]) == calls


# LangChain


def test_langchain_validates_a_model_chats_and_streams(ollama_gateway: Running) -> None:
    about: Any = {"model": "demo", "base_url": ollama_gateway.url, "temperature": 0}
    with closed(langchain_ollama.ChatOllama(**about, validate_model_on_init=True)) as model:
        whole = model.invoke([("human", QUESTION)])
        assert whole.content == ANSWER
        assert whole.usage_metadata["output_tokens"] > 10
        assert "".join(piece.content for piece in model.stream(QUESTION)) == ANSWER
    with closed(langchain_ollama.OllamaLLM(**about)) as model:
        assert model.invoke(QUESTION) == ANSWER
    with pytest.raises(ValueError, match="not found in Ollama"):
        langchain_ollama.ChatOllama(**{**about, "model": "nowhere"}, validate_model_on_init=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one cannot be closed
        gc.collect()

    async def ask() -> str:
        model: Any = langchain_ollama.ChatOllama(**about)
        try:
            return str((await model.ainvoke(QUESTION)).content)
        finally:
            await model._async_client.close()
            model._client.close()

    assert asyncio.run(ask()) == ANSWER


def test_langchain_gets_structured_output_and_vectors(ollama_gateway: Running) -> None:
    schema = {"title": "Answer", "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    with closed(
        langchain_ollama.ChatOllama(model="demo", base_url=ollama_gateway.url, temperature=0, num_predict=200)
    ) as model:
        found = model.with_structured_output(schema, method="json_schema").invoke(QUESTION)
    assert type(found["a"]) is int
    with closed(langchain_ollama.OllamaEmbeddings(model="vectors", base_url=ollama_gateway.url)) as embeddings:
        vectors = embeddings.embed_documents(["a", "b"])
    assert [len(vector) for vector in vectors] == [384, 384]


def test_langchain_calls_a_tool(ollama_gateway: Running) -> None:
    def sky(city: Literal["Oslo", "Rome"]) -> str:
        """Say what can be seen in the sky."""
        return city

    with closed(
        langchain_ollama.ChatOllama(model="tools", base_url=ollama_gateway.url, temperature=0, num_predict=64)
    ) as model:
        [call, *_] = model.bind_tools([sky]).invoke("what do you see?").tool_calls
    assert call["name"] == "sky"
    assert call["args"]["city"] in ("Oslo", "Rome")


# ollama-js


SCRIPT = """
import { Ollama } from "ollama"
const ollama = new Ollama({ host: process.argv[2] })
const messages = [{ role: "user", content: process.argv[3] }]
const options = { temperature: 0 }
let text = ""
const stream = await ollama.chat({ model: "demo", messages, options, stream: true })
for await (const part of stream) text += part.message.content
const listed = (await ollama.list()).models.map((each) => each.model)
const vectors = (await ollama.embed({ model: "vectors", input: ["a", "b"] })).embeddings.length
let status = 0
try { await ollama.show({ model: "nowhere" }) } catch (error) { status = error.status_code }
const format = { type: "array", minItems: 500, items: { type: "integer" } }
const long = { num_predict: 900 }
const endless = await ollama.generate({ model: "demo", prompt: "x", raw: true, stream: true, options: long, format })
let aborted = false
try { for await (const part of endless) ollama.abort() } catch (error) { aborted = error.name === "AbortError" }
console.log(JSON.stringify({ text, listed, vectors, status, aborted }))
"""


def test_ollama_js_streams_to_the_end_and_an_abort_frees_the_slot(ollama_gateway: Running, ollama_js: Path) -> None:
    script = ollama_js / "client.mjs"
    script.write_text(SCRIPT)
    done = subprocess.run(
        ["node", str(script), ollama_gateway.url, QUESTION], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["text"] == ANSWER
    assert "demo:latest" in found["listed"]
    assert (found["vectors"], found["status"], found["aborted"]) == (2, 404, True)
    ollama_gateway.wait_for(lambda: not ollama_gateway.running()["demo"]["in_flight"])
    ollama_gateway.wait_for(lambda: slots_are_free(ollama_gateway))


# Streams that end early


def test_a_client_that_leaves_frees_the_slot(ollama_gateway: Running) -> None:
    schema = {"type": "array", "minItems": 500, "items": {"type": "integer"}}
    body = {"model": "demo", "prompt": "x", "raw": True, "format": schema, "options": {"num_predict": 900}}
    with httpx.stream("POST", f"{ollama_gateway.url}/api/generate", json=body, timeout=120) as answer:
        next(answer.iter_lines())
    ollama_gateway.wait_for(lambda: not ollama_gateway.running()["demo"]["in_flight"])
    ollama_gateway.wait_for(lambda: slots_are_free(ollama_gateway))


def test_a_process_that_is_killed_ends_a_stream_with_an_error_line(ollama_gateway: Running) -> None:
    post(ollama_gateway, "/api/generate", {"model": "demo"})
    pid = ollama_gateway.running()["demo"]["pid"]
    schema = {"type": "array", "minItems": 500, "items": {"type": "integer"}}
    body = {"model": "demo", "prompt": "x", "raw": True, "format": schema, "options": {"num_predict": 900}}
    with httpx.stream("POST", f"{ollama_gateway.url}/api/generate", json=body, timeout=120) as answer:
        lines = answer.iter_lines()
        next(lines)
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
        last = [json.loads(line) for line in lines][-1]
    assert "stopped while it answered" in last["error"]
    ollama_gateway.wait_for(lambda: ollama_gateway.running().get("demo", {"pid": None})["pid"] != pid)
    with ollama.Client(ollama_gateway.url) as client:
        assert client.chat("demo", ASKED, options={"temperature": 0}).message.content == ANSWER


def test_a_request_that_is_not_http_does_no_harm(ollama_gateway: Running) -> None:
    host, _, port = ollama_gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\x16\x03\x01\x00garbage\r\n\r\n")
        assert b"400" in connection.recv(4096)
    assert httpx.get(ollama_gateway.url).status_code == 200
