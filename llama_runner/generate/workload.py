"""One container: the command that serves a model, and what it needs of the machine that runs it. Pure."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable import Value, field
from llama_runner.generate.errors import CannotGenerate, new_key_error
from llama_runner.generate.names import labels
from llama_runner.generate.quoting import check_text
from llama_runner.request.artifact_options import ARTIFACTS, BUILD, PROGRAMS
from llama_runner.request.run_arguments import run_arguments
from llama_runner.serving.llama_server.launch_spec import ServerOptions, is_loopback, is_socket
from llama_runner.serving.llama_server.option_paths import takes_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UID = 10001
"""The user and the group in the image."""
ROOT = "/var/lib/llama-runner"
"""The root in the container, on a volume."""
SECRETS = "/run/secrets"
FILES = "/srv/llama-runner"
"""Below it are files of the machine, read-only."""
PORT = 8080
"""The port in each container."""
FIRST_PORT = 8080
"""Published for the first model without a port of its own."""

OF_IMAGE = frozenset(option.name for option in (*PROGRAMS, *BUILD)) | {"platform"}
"""Options about programs: the image has them."""
_OF_ONE_CALL = frozenset(("force", "update", "fresh_tools", "locked", "lock_file", "remote_push"))
_PATHS = frozenset(option.name for option in ARTIFACTS if option.kind in ("file", "directory")) - {"token_file"}
_WRITTEN = ("--log-file", "--slot-save-path", "--logits-output-dir")
"""Options of llama-server that name what it writes."""


class ServedModel(Value, eq=False):
    """A declared model with its options."""

    name: str
    source: str | None
    """What ``run`` takes as MODEL; None where a keyword names it."""
    keywords: Mapping[str, Any] = field(default_factory=dict)
    server: ServerOptions = field(default_factory=ServerOptions)
    port: int | None = None
    """The port that the declaration names."""
    life_cycle: Mapping[str, Any] = field(default_factory=dict)
    """``restart`` and ``restart_limit``."""
    memory: MemoryNeed | None = None


class MemoryNeed(Value):
    """Bytes of the host's memory."""

    request: int
    """What the server takes once it is ready."""
    limit: int
    """What it may take later: the cache of prompts grows."""


class Mount(Value):
    """A file or directory of the machine, read-only in the container."""

    source: str
    target: str


class Secret(Value):
    """A secret in a file of the machine; ``target`` is its file in the container."""

    name: str
    source: str
    target: str
    key: str
    """What it is, and its key in a Secret of Kubernetes: ``api-key``, ``hub-token``, ``tls.crt``, ``tls.key``."""
    variable: str | None = None
    """The environment variable that is read instead of the file."""


class Workload(Value):
    """One container."""

    name: str
    """The declared name of the model."""
    label: str
    arguments: tuple[str, ...]
    """The words after ``llama-runner``."""
    preparation: tuple[str, ...]
    """The words that make what ``arguments`` needs."""
    host: str
    """The address of the machine where it is published."""
    port: int
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[Secret, ...] = ()
    memory: MemoryNeed | None = None
    threads: int | None = None
    health_path: str = "/health"
    is_encrypted: bool = False

    @property
    def health_check(self) -> tuple[str, ...]:
        """The command that succeeds if the server is ready. No proxy is used; the certificate is not checked."""
        scheme = "https" if self.is_encrypted else "http"
        url = f"{scheme}://127.0.0.1:{PORT}{self.health_path}"
        handlers = "u.ProxyHandler({})"
        code = "import urllib.request as u"
        if self.is_encrypted:
            code += ", ssl"
            handlers += ", u.HTTPSHandler(context=ssl._create_unverified_context())"
        return ("python3", "-c", f"{code}; u.build_opener({handlers}).open({url!r}, timeout=5)")


def workloads(models: Sequence[ServedModel], *, cluster: bool = False, metrics: bool = False) -> list[Workload]:
    """Return the containers of models, one for each. Raises ``CannotGenerate``.

    ``cluster``: the containers run on other machines. They have no files of this one, API keys and tokens are variables
    and not files, and a key is needed unless the model says ``insecure``. ``metrics``: llama-server shows its metrics.
    """
    for model in models:
        for text in (model.name, model.source or "", model.server.host, *model.server.extra):
            check_text(text)
    named = labels(model.name for model in models)
    ports = dict.fromkeys(named, PORT) if cluster else checked_ports(models)
    if metrics:
        models = [model if "--metrics" in model.server.extra else _with_metrics(model) for model in models]
    return [_Container(model, named[model.name], ports[model.name], cluster).workload() for model in models]


def _with_metrics(model: ServedModel) -> ServedModel:
    return model.replace(server=model.server.replace(extra=(*model.server.extra, "--metrics")))


def checked_ports(models: Sequence[ServedModel]) -> dict[str, int]:
    """Return the port of each model; ``CannotGenerate`` for a port that two name."""
    owners: dict[tuple[str, int], str] = {}
    for model in models:
        if model.port is None:
            continue
        if (other := owners.setdefault((model.server.host, model.port), model.name)) != model.name:
            raise CannotGenerate(
                f"{other!r} and {model.name!r} both have the port {model.port}",
                model=model.name,
                hint="give one of them another port, or leave it out",
            )
    taken = {port for _, port in owners}
    free = (port for port in range(FIRST_PORT, 1 << 16) if port not in taken)
    return {model.name: model.port or next(free) for model in models}


class _Container:
    """Makes the container of one model; collects the files that it needs."""

    def __init__(self, model: ServedModel, label: str, port: int, cluster: bool) -> None:
        self._model, self._label, self._port, self._cluster = model, label, port, cluster
        self._mounts: dict[str, Mount] = {}
        self._secrets: list[Secret] = []

    def workload(self) -> Workload:
        model, given = self._model, self._model.server
        if is_socket(given.host):
            text = f"{model.name!r} listens at a UNIX socket, {given.host}"
            raise CannotGenerate(text, model=model.name, hint="give it a host and a port")
        if given.api_key is not None:
            raise new_key_error(model.name)
        source = model.source
        if source is not None and PurePath(source).is_absolute():
            source = self._file(source)
        keywords = self._keywords()
        server = self._server()
        host = "0.0.0.0" if self._cluster else given.host  # noqa: S104 - in the container, where a port is published
        arguments = run_arguments(source, server, keywords)
        return Workload(
            name=model.name,
            label=self._label,
            arguments=("run", *arguments),
            preparation=("prepare", *run_arguments(source, None, keywords)),
            host=host,
            port=self._port,
            mounts=tuple(self._mounts.values()),
            secrets=tuple(self._secrets),
            memory=model.memory,
            threads=given.threads,
            health_path=f"{_last_value('--api-prefix', server.extra) or ''}/health",
            is_encrypted=server.tls_cert is not None,
        )

    def _keywords(self) -> dict[str, Any]:
        """Return the keywords in the container: without those about programs, with the paths there."""
        found: dict[str, Any] = {}
        for name, value in self._model.keywords.items():
            if name in OF_IMAGE | _OF_ONE_CALL or value is None:
                continue
            if name in _PATHS:
                found[name] = self._file(str(value))
            elif name == "lora":
                found[name] = tuple(self._file(str(each)) for each in value)
            elif name == "token_file":
                path = self._secret("hub-token", str(value), "HF_TOKEN")
                found |= {name: path} if not self._cluster else {}
            else:
                found[name] = value
        store = str(found.get("remote_store") or "")
        if store and "://" not in store:
            found["remote_store"] = self._file(store)
        elif store.startswith("file://"):
            raise CannotGenerate(
                f"the remote store {store} is a directory of this machine", hint="write it as a path, or name a URL"
            )
        return found

    def _server(self) -> ServerOptions:
        """Return the options of the server in the container: it listens at every address of its own."""
        given = self._model.server
        has_key = given.api_key_file is not None
        if self._cluster and not (has_key or given.insecure):
            has_key = True
            self._secret("api-key", "FILE", "LLAMA_API_KEY")
        elif given.api_key_file is not None:
            self._secret("api-key", str(given.api_key_file), "LLAMA_API_KEY")
        if not (has_key or given.insecure or is_loopback(given.host)):
            raise CannotGenerate(
                f"{self._model.name!r} has no API key, and whoever reaches {given.host} could use it",
                model=self._model.name,
                hint="give it api_key_file, or insecure = true",
            )
        certificate = key = None
        if given.tls_cert is not None and given.tls_key is not None:
            certificate = self._secret("tls.crt", str(given.tls_cert))
            key = self._secret("tls.key", str(given.tls_key))
        return given.replace(
            host="0.0.0.0",  # noqa: S104 - in the container
            port=PORT,
            # in a container without a key, who may connect is decided by where the port is published
            insecure=not has_key,
            api_key_file=f"{SECRETS}/{self._label}-api-key" if has_key and not self._cluster else None,
            tls_cert=certificate,
            tls_key=key,
            extra=self._extra(given.extra),
        )

    def _extra(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return options of llama-server with the paths in the container."""
        found: list[str] = []
        for word in words:
            option = found[-1] if found else ""
            if option in _WRITTEN and option.startswith("-"):
                raise CannotGenerate(
                    f"{self._model.name!r} has {option} {word}, a path of this machine",
                    model=self._model.name,
                    hint=f"leave {option} out; the container has only its store and /tmp to write to",
                )
            is_file = option.startswith("-") and takes_path(option) and PurePath(word).is_absolute()
            found.append(self._file(word) if is_file else word)
        return tuple(found)

    def _file(self, path: str) -> str:
        """Return the path in the container of a file or directory of this machine."""
        if self._cluster:
            raise CannotGenerate(
                f"{self._model.name!r} needs {path}, which is on this machine only",
                model=self._model.name,
                hint="name a model on the Hub; what was made of a file here cannot be served from a cluster",
            )
        given = PurePath(path)
        # the files of a split model stand side by side
        whole = given.parent if re.fullmatch(r".*-\d{5}-of-\d{5}\.gguf", given.name) else given
        mount = self._mounts.get(str(whole))
        if mount is None:
            target = f"{FILES}/{self._label}/{len(self._mounts)}/{whole.name or 'files'}"
            mount = self._mounts[str(whole)] = Mount(str(whole), target)
        return mount.target if whole == given else f"{mount.target}/{given.name}"

    def _secret(self, key: str, source: str, variable: str | None = None) -> str:
        """Return the path in the container of a secret."""
        name = f"{self._label}-{key.replace('.', '-')}"
        target = f"{SECRETS}/{name}"
        self._secrets.append(Secret(name, source, target, key, None if not self._cluster else variable))
        return target


def _last_value(option: str, words: Sequence[str]) -> str | None:
    return next((words[at + 1] for at in range(len(words) - 2, -1, -1) if words[at] == option), None)
