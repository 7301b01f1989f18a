"""A source tree that builds in a second: two C programs under llama.cpp's names, with its CMake variables.

They prove themselves as llama.cpp's do: the server answers everything with the demo model's sentence.
"""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any, ClassVar

from llama_runner.core import events
from llama_runner.core.digest import Digest
from llama_runner.core.plan import Snapshot
from llama_runner.core.source import Source
from llama_runner.core.step import Node, Step
from llama_runner.demo import ANSWER
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.engine.plan_outcome import Outcome
from llama_runner.llama_cpp.toolchain import find_toolchain
from llama_runner.steps.compile import CompileLlama
from llama_runner.store.artifacts import Store
from llama_runner.store.digest_cache import hash_payload
from llama_runner.store.local_sources import LocalSources

CMAKE_LISTS = """
cmake_minimum_required(VERSION 3.14)
project(tiny C)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
foreach(known CMAKE_BUILD_TYPE BUILD_SHARED_LIBS LLAMA_BUILD_NUMBER LLAMA_BUILD_COMMIT)
  set(unused "${${known}}")
endforeach()
add_compile_definitions(NUMBER=${LLAMA_BUILD_NUMBER} COMMIT="${LLAMA_BUILD_COMMIT}")
add_executable(llama-server server.c)
add_executable(llama-quantize quantize.c)
"""

SERVER_C = r"""
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const char *where = __FILE__;

static const char *option(int count, char **words, const char *name) {
    for (int i = 1; i + 1 < count; i++)
        if (!strcmp(words[i], name)) return words[i + 1];
    return "0";
}

static void answer(int peer, const char *alias) {
    static char asked[1 << 16], said[1 << 12], body[1 << 11];
    size_t size = 0, whole = sizeof asked - 1;
    while (size < whole) {
        ssize_t got = read(peer, asked + size, sizeof asked - 1 - size);
        if (got <= 0) return;
        asked[size += got] = 0;
        const char *end = strstr(asked, "\r\n\r\n"), *length = strstr(asked, "Content-Length: ");
        if (end) whole = end + 4 - asked + (length && length < end ? strtoul(length + 16, 0, 10) : 0);
    }
    if (!strncmp(asked, "POST", 4))
        snprintf(body, sizeof body, "{\"choices\": [{\"message\": {\"content\": %s}}]}", SENTENCE);
    else
        snprintf(body, sizeof body, "{\"status\": \"ok\", \"data\": [{\"id\": \"%s\"}]}", alias);
    int count = snprintf(said, sizeof said, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"
        "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    if (write(peer, said, count) < 0) perror("write");
}

int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "--version")) {
        fprintf(stderr, "version: 0.0.0 (build %d, commit %s)\n", NUMBER, COMMIT);
        return 0;
    }
    if (count > 1 && !strcmp(words[1], "--list-devices")) {
        puts("Available devices:");
        return 0;
    }
    struct sockaddr_in at = {0};
    socklen_t size = sizeof at;
    int door = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    at.sin_port = htons(atoi(option(count, words, "--port")));
    if (bind(door, (struct sockaddr *) &at, sizeof at) || listen(door, 8)) return perror("listen"), 1;
    getsockname(door, (struct sockaddr *) &at, &size);
    printf("main: server is listening on http://127.0.0.1:%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (;;) {
        int peer = accept(door, 0, 0);
        answer(peer, option(count, words, "--alias"));
        close(peer);
    }
}
""".replace("SENTENCE", json.dumps(json.dumps(ANSWER)))

QUANTIZE_C = '#include <stdio.h>\nint main(void) { puts("Q8_0"); return 0; }\n'

PATCH = """
From 0000000 Mon Sep 17 00:00:00 2001
Subject: [PATCH] it exits with 1
---
diff --git a/quantize.c b/quantize.c
--- a/quantize.c
+++ b/quantize.c
@@ -1,2 +1,2 @@
 #include <stdio.h>
-int main(void) { puts("Q8_0"); return 0; }
+int main(void) { puts("Q8_0"); return 1; }
diff --git a/include/new.h b/include/new.h
new file mode 100644
--- /dev/null
+++ b/include/new.h
@@ -0,0 +1 @@
+#define NEW
"""

OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_NUMBER=7", "-DLLAMA_BUILD_COMMIT=x")


class Tree(Source):
    """A directory or file that lies there."""

    path: Path
    kind: ClassVar[str] = "tree"


class Sources(LocalSources):
    """The sources of this machine, and `Tree` too."""

    def digest(self, source: Source) -> Digest:
        return hash_payload(source.path)[0] if isinstance(source, Tree) else super().digest(source)

    def path(self, source: Source) -> Path:
        return source.path if isinstance(source, Tree) else super().path(source)

    def origin(self, source: Source) -> dict[str, Any]:
        return {"kind": "tree", "ref": str(source.path)} if isinstance(source, Tree) else super().origin(source)

    def unrecorded_origin(self, source: Source) -> dict[str, Any] | None:
        return None if isinstance(source, Tree) else super().unrecorded_origin(source)

    def verify(self, source: Source) -> None:
        if isinstance(source, Tree):
            assert source.path.exists()
        else:
            super().verify(source)


class Bench:
    """A root to execute steps in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[events.Event] = []
        self.store = Store(root, self.events.append)

    def execute(self, *targets: Step) -> Outcome:
        observer = self.observer()
        plan = observer.plan(targets, Snapshot())
        return Executor(self.store, observer, self.events.append, lock_timeout=10).execute(plan)

    def observer(self) -> Observer:
        return Observer(self.store, Sources(self.store, remember=True, inspect=lambda _: None))

    def ran(self) -> list[str]:
        names = [event.step for event in self.events if isinstance(event, events.StepFinished)]
        self.events.clear()
        return names

    def nothing_is_left(self) -> bool:
        return not any((self.root / ".llama_runner" / "staging").iterdir())


def compile_step(tree: Path | Node, **changed: Any) -> CompileLlama:
    toolchain = find_toolchain(os.environ)
    given: dict[str, Any] = {
        "tree": Tree(tree) if isinstance(tree, Path) else tree,
        "backend": "cpu",
        "build": 7,
        "options": OPTIONS,
        "targets": ("llama-server", "llama-quantize"),
        "project_include": "x",
        "compilers": toolchain.identity,
        "environment": (),
        "os_and_arch": "test",
        "toolchain": toolchain,
        "jobs": 2,
        **changed,
    }
    return CompileLlama(**given)


def write_tree(directory: Path, **changed: str) -> Path:
    """Write the source tree; keyword arguments replace a file's text (``server_c=…``)."""
    texts = {"CMakeLists.txt": CMAKE_LISTS, "server.c": SERVER_C, "quantize.c": QUANTIZE_C}
    directory.mkdir(parents=True)
    for name, text in texts.items():
        (directory / name).write_text(changed.get(name.replace(".", "_").lower(), text))
    return directory


def write_wheel(path: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """Write a small wheel that pip accepts."""
    stem = f"{name}-{version}"
    record = [*files, f"{stem}.dist-info/METADATA", f"{stem}.dist-info/WHEEL", f"{stem}.dist-info/RECORD"]
    file = path / f"{stem}-py3-none-any.whl"
    path.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as wheel:
        for member, text in files.items():
            wheel.writestr(member, text)
        wheel.writestr(record[-3], f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(record[-2], "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(record[-1], "".join(f"{member},,\n" for member in record))
    return file


AUTHOR = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}

WITHOUT_CONFIG = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def git(directory: Path, *words: str) -> str:
    """Run git in a directory, without the configuration of the user, and return its output."""
    env = {**os.environ, **AUTHOR, **WITHOUT_CONFIG}
    done = subprocess.run(["git", "-C", directory, *words], env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()
