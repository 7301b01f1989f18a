"""A tiny real program that plays llama-server b10605, and misbehaves as the JSON object in ``GGML_FAKE`` asks.

``GET /say``, ``/exit/N`` and ``/kill/N`` make it speak a line, exit with N, or die of signal N, at any time.
What it may contain (variables of ggml reach the server, others do not):

    inspect: PATH           write argv and environment there, as JSON
    say: TEXT               before anything else; one byte for each character (Latin-1)
    burst: N                then N blocks of 64 KiB, block I of 4096 lines ``000…I``
    flood: N                then N bytes without a newline
    grandchild: PATH        then start a process that does not hear SIGTERM and holds our output; its pid goes there
    session: true           it goes into a session of its own, and its parent ends at once
    ignore_term: true       ignore SIGTERM, and say when it comes
    deaf: true              the same, until its loop has answered something (GET /lora-adapters)
    load_until: PATH        answer 503 until there is such a file; for ever if it never comes
    close_output: true      once loaded, say nothing more
    die_loading: N          exit with N while loading, or die of signal -N
    name: TEXT              list another model
    models: ANY             the answer of /v1/models, a text as it is
    no_tokens: true         have no completions
    sentence: TEXT          what it answers in a chat
    headers: PATH           write the headers of a chat request there, as a JSON array
    asked: PATH             it never answers in a chat; there is such a file once somebody has asked
    stream: N               answer a chat with N events of 64 KiB, and no end if N is negative: one event, then nothing
    die_answering: N        exit with N when it is asked in a chat, or die of signal -N
    closes: true            keep connections open, and close one without an answer when a second request comes
    no_tls: true            be built without TLS
    open: true              ask nobody for a key
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

FAKE = json.loads(os.environ.get("GGML_FAKE", "{}"))
LOCK, LOOPS = threading.Lock(), threading.Event()


def say(text: str, end: str = "\n") -> None:
    data = (text + end).encode("latin-1")
    with LOCK:
        while data:
            data = data[os.write(1, data) :]


def die(status: int) -> None:
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.raise_signal(-status)
    os._exit(status)


def await_term() -> None:
    """Take each SIGTERM; a thread of its own misses none, as a handler beside ``signal.pause`` may."""
    while True:
        signal.sigwait([signal.SIGTERM])
        say("received SIGTERM")
        if not (FAKE.get("ignore_term") or (FAKE.get("deaf") and not LOOPS.is_set())):
            die(0)


def publish(path: str, text: str) -> None:
    Path(path + ".new").write_text(text, encoding="utf-8")
    Path(path + ".new").replace(path)


def grandchild(path: str) -> None:
    program = "import time; time.sleep(3600)"  # SIGTERM is blocked in it, as it is in us
    if FAKE.get("session"):
        middle = os.fork()
        if middle:
            os.waitpid(middle, 0)
            return
        os.setsid()
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", program])
    publish(path, str(child.pid))
    if FAKE.get("session"):
        os._exit(0)


class Options:
    """The few options that matter here; the others are taken and forgotten, as are unknown ones."""

    def __init__(self, words: list[str]) -> None:
        pairs = list(zip(words, [*words[1:], ""], strict=False))
        self.all = [(word.replace("_", "-") if word.startswith("--") else word, value) for word, value in pairs]
        self.aliases = sorted(name.strip() for value in self.of("-a", "--alias") for name in value.split(","))
        self.host, self.port = self.of("--host")[-1], int(self.of("--port")[-1])
        self.prefix = (self.of("--api-prefix") or [""])[-1]
        self.keys = next(csv.reader([os.environ.get("LLAMA_API_KEY", "")]), [])
        for path in self.of("--api-key-file"):
            lines = Path(path).read_text(encoding="utf-8").splitlines()
            self.keys += [line for line in lines if line and not line.startswith("#")]
        self.keys = [key for key in self.keys if key and not FAKE.get("open")]

    def of(self, *names: str) -> list[str]:
        return [value for word, value in self.all if word in names]


class Fake:
    def __init__(self, options: Options) -> None:
        self.options = options

    def loading(self) -> bool:
        return "die_loading" in FAKE or not Path(FAKE.get("load_until", "/")).exists()

    def answer(self, path: str, key: str) -> tuple[int, str]:
        if path.startswith(("/say", "/exit/", "/kill/")):
            return self.obey(path)
        path = path.removeprefix(self.options.prefix)
        public = path == "/health" and not self.options.prefix
        if self.options.keys and not public and key.removeprefix("Bearer ") not in self.options.keys:
            say("W srv    operator(): unauthorized: Invalid API Key")
            return 401, '{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}'
        if self.loading():
            return 503, '{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
        if path == "/health":
            return 200, '{"status":"ok"}'
        if path in ("/completion", "/v1/chat/completions"):
            return self.generate(path)
        if path == "/lora-adapters":
            LOOPS.set()
            return 200, "[]"
        if path == "/slots":
            return 200, json.dumps([{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}])
        if path == "/metrics" and "--metrics" in sys.argv:
            return 200, "# TYPE llamacpp:predicted_tokens_seconds gauge\nllamacpp:predicted_tokens_seconds 12.5\n"
        if path == "/v1/models":
            return 200, self.models()
        return 404, '{"error":{"message":"File Not Found","type":"not_found_error","code":404}}'

    def generate(self, path: str) -> tuple[int, str]:
        if path == "/completion" and not FAKE.get("no_tokens"):
            say("I slot      release: stop processing: n_tokens = 2")
            return 200, '{"content":"b","tokens_predicted":1}'
        if "asked" in FAKE:
            publish(FAKE["asked"], "")
            threading.Event().wait()
        if "die_answering" in FAKE:
            die(FAKE["die_answering"])
        if path == "/completion" or "sentence" not in FAKE:
            return 404, "{}"
        return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": FAKE["sentence"]}}]})

    def obey(self, path: str) -> tuple[int, str]:
        if path != "/say":
            die(int(path[6:]) if path.startswith("/exit/") else -int(path[6:]))
        say("still here")
        return 200, "{}"

    def models(self) -> str:
        if "models" in FAKE:
            answer = FAKE["models"]
            return answer if isinstance(answer, str) else json.dumps(answer)
        names = [FAKE["name"]] if "name" in FAKE else self.options.aliases
        context = int((self.options.of("-c", "--ctx-size") or ["512"])[-1])
        meta = {"vocab_type": True, "n_vocab": 768, "n_ctx": context, "n_ctx_train": 512, "n_params": 1967872}
        entry = {"id": names[0], "aliases": names, "tags": [], "object": "model", "owned_by": "llamacpp", "meta": meta}
        return json.dumps({"models": [{"name": names[0]}], "object": "list", "data": [entry]})

    def converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                block = connection.recv(4096)
                if not block:
                    return
                request += block
            head, *headers = request.decode("latin-1").split("\r\n")
            key = next((line.partition(": ")[2] for line in headers if line.lower().startswith("authorization:")), "")
            if head.split()[1] == "/v1/chat/completions" and "headers" in FAKE:
                publish(FAKE["headers"], json.dumps(headers[: headers.index("")]))
            if head.split()[1] == "/v1/chat/completions" and "stream" in FAKE:
                self.stream(connection)
                return
            status, body = self.answer(head.split()[1], key)
            how = "Keep-Alive: timeout=5, max=100" if "closes" in FAKE else "Connection: close"
            connection.sendall(
                f"HTTP/1.1 {status} -\r\nServer: llama.cpp\r\nContent-Type: application/json; charset=utf-8\r\n"
                f"Content-Length: {len(body.encode())}\r\n{how}\r\n\r\n{body}".encode()
            )
            if "closes" in FAKE:
                connection.recv(1)

    def stream(self, connection: socket.socket) -> None:
        """Answer with events; the client may leave at any time."""
        connection.sendall(b"HTTP/1.1 200 -\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        event = b"data: " + b"x" * (1 << 16) + b"\n\n"
        for _ in range(abs(FAKE["stream"])):
            connection.sendall(b"%x\r\n%s\r\n" % (len(event), event))
        if FAKE["stream"] < 0:
            connection.recv(1)
        connection.sendall(b"0\r\n\r\n")

    def serve(self) -> None:
        host, here = self.options.host, self.options.host.endswith(".sock")
        family = socket.AF_UNIX if here else socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(host if here else (host, self.options.port))
        except OSError:
            say(f"E srv    start: couldn't bind HTTP server socket, hostname: {self.options.host}")
            die(1)
        listener.listen(4096)
        tls = self.options.of("--ssl-cert-file")
        if tls and FAKE.get("no_tls"):
            say("E srv          init: the server is built without SSL support")
            die(1)
        if tls:
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls[0], self.options.of("--ssl-key-file")[0])
            listener = context.wrap_socket(listener, server_side=True)
        address = f"unix://{host}"
        if not here:
            host, port = listener.getsockname()[:2]
            address = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        say(f"0.00.019.232 I srv  llama_server: listening on {address}")
        threading.Thread(target=self.accept, args=[listener], daemon=True).start()

    def accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # a client that does not trust us
                continue
            threading.Thread(target=self.converse, args=[connection], daemon=True).start()


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=await_term, daemon=True).start()
    if "inspect" in FAKE:
        publish(FAKE["inspect"], json.dumps({"argv": sys.argv, "environment": dict(os.environ)}))
    say(FAKE.get("say", ""), end="")
    for number in range(FAKE.get("burst", 0)):
        say(f"{number:015}\n" * 4096, end="")
    say("x" * FAKE.get("flood", 0), end="")
    if "grandchild" in FAKE:
        grandchild(FAKE["grandchild"])
    fake = Fake(Options(sys.argv[1:]))
    fake.serve()
    say(f"I srv    load_model: loading model '{fake.options.of('-m')[0]}'")
    if "die_loading" in FAKE:
        say("E llama_model_load: error loading model: tensor 'output.weight' data is out of bounds", end="")
        die(FAKE["die_loading"])
    while fake.loading():
        time.sleep(0.005)
    say("I srv  llama_server: model loaded")
    if FAKE.get("close_output"):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
    threading.Event().wait()


if __name__ == "__main__":
    main()
