"""A container as a value: the command that serves a model, its files, secrets, ports and memory. Pure."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value, field
from llama_runner.generate.container_mounts import SECRETS, ContainerFiles, Mount, Secret
from llama_runner.generate.errors import CannotGenerate, new_key_error
from llama_runner.generate.object_names import labels
from llama_runner.generate.quoting import check_text
from llama_runner.request.model_and_build_options import ARTIFACTS, BUILD, PROGRAMS
from llama_runner.request.request_as_command_line import run_arguments
from llama_runner.serving.llama_server.launch_spec import ServerOptions, is_loopback_or_socket, is_socket
from llama_runner.sources.parse_lora_option import is_bare_name, is_local, parse_adapter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UID = 10001
"""The user and the group in the image."""
ROOT = "/var/lib/llama-runner"
"""The root in the container, on a volume."""
PORT = 8080
"""The port in each container."""
FIRST_PORT = 8080
"""Published for the first model without a port of its own."""

OF_IMAGE = frozenset(option.name for option in (*PROGRAMS, *BUILD)) | {"platform"}
"""Options about programs: the image has them."""
_OF_ONE_CALL = frozenset(("force", "update", "fresh_tools", "locked", "lock_file", "remote_push"))
PATHS = frozenset(option.name for option in ARTIFACTS if option.kind in ("file", "directory")) - {"token_file"}


class RunCall(Value, eq=False):
    """What ``llama-runner run`` is called with for a declared model."""

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


class Workload(Value, eq=False):
    """One container."""

    name: str
    """The declared name of the model."""
    label: str
    arguments: tuple[str, ...]
    """The words after ``llama-runner``."""
    preparations: tuple[tuple[str, ...], ...]
    """The words of each command that makes what ``arguments`` needs."""
    host: str
    """The address of the machine where it is published."""
    port: int
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[Secret, ...] = ()
    memory: MemoryNeed | None = None
    threads: int | None = None
    health_path: str = "/health"
    is_encrypted: bool = False
    metric: str = "llamacpp:requests_processing"
    """The requests in progress, as its ``/metrics`` has them."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Files in the container with their text."""
    private: Mapping[str, str] = field(default_factory=dict)
    """Files in a cluster that only the user of the container may read, with the secrets that they are copies of."""

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


def workloads(models: Sequence[RunCall], *, cluster: bool = False, metrics: bool = False) -> list[Workload]:
    """Return the containers of models, one for each. Raises ``CannotGenerate``.

    ``cluster``: the containers run on other machines. They have no files of this one, API keys and tokens are variables
    and not files, and a key is needed unless the model says ``insecure``. ``metrics``: llama-server shows its metrics.
    """
    for model in models:
        check_text(model.name)
    named = labels(model.name for model in models)
    ports = dict.fromkeys(named, PORT) if cluster else checked_ports(models)
    if metrics:
        models = [model if "--metrics" in model.server.extra else _with_metrics(model) for model in models]
    return [_Container(model, named[model.name], ports[model.name], cluster).workload() for model in models]


def _with_metrics(model: RunCall) -> RunCall:
    return model.replace(server=model.server.replace(extra=(*model.server.extra, "--metrics")))


def checked_ports(models: Sequence[RunCall]) -> dict[str, int]:
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

    def __init__(self, model: RunCall, label: str, port: int, cluster: bool) -> None:
        self._model, self._label, self._port, self._cluster = model, label, port, cluster
        self._files = ContainerFiles(model.name, label, cluster=cluster)

    def workload(self) -> Workload:
        model, given = self._model, self._model.server
        if is_socket(given.host):
            text = f"{model.name!r} listens at a UNIX socket, {given.host}"
            raise CannotGenerate(text, model=model.name, hint="give it a host and a port")
        if given.api_key is not None:
            raise new_key_error(model.name)
        source = model.source
        if source is not None and PurePath(source).is_absolute():
            source = self._files.file(source)
        keywords = self._keywords()
        server = self._server()
        host = "0.0.0.0" if self._cluster else given.host  # noqa: S104 - in the container, where a port is published
        arguments = run_arguments(source, server, keywords)
        for word in arguments:
            check_text(word)
        return Workload(
            name=model.name,
            label=self._label,
            arguments=("run", *arguments),
            preparations=(("prepare", *run_arguments(source, None, keywords)),),
            host=host,
            port=self._port,
            mounts=self._files.mounts,
            secrets=self._files.secrets,
            memory=model.memory,
            threads=given.threads,
            health_path=f"{_last_value('--api-prefix', server.extra) or ''}/health",
            is_encrypted=server.tls_cert is not None,
        )

    def _keywords(self) -> dict[str, Any]:
        """Return the keywords for the container: without those about programs, with paths of the container."""
        found: dict[str, Any] = {}
        for name, value in self._model.keywords.items():
            if name in OF_IMAGE | _OF_ONE_CALL or value is None:
                continue
            if name in PATHS:
                found[name] = self._files.file(str(value))
            elif name == "lora":
                found[name] = tuple(map(self._adapter, value))
            elif name == "token_file":
                path = self._files.secret("hub-token", str(value), "HF_TOKEN")
                found |= {name: path} if not self._cluster else {}
            else:
                found[name] = value
        store = str(found.get("remote_store") or "")
        if store and "://" not in store:
            found["remote_store"] = self._files.file(store)
        return found

    def _adapter(self, text: object) -> str:
        """Return a value of ``lora`` with the path of the container; names on the Hub as they are."""
        given = parse_adapter(str(text))
        if not is_local(given.where) or is_bare_name(given.where):
            return str(text)
        path = self._files.file(given.where)
        return path if given.where == str(text) else given.replace(where=path).text

    def _server(self) -> ServerOptions:
        """Return the options of the server in the container: it listens at every address of its own."""
        given = self._model.server
        has_key = given.api_key_file is not None
        if self._cluster and not (has_key or given.insecure):
            has_key = True
            self._files.secret("api-key", "FILE", "LLAMA_API_KEY")
        elif given.api_key_file is not None:
            self._files.secret("api-key", str(given.api_key_file), "LLAMA_API_KEY")
        if not (has_key or given.insecure or is_loopback_or_socket(given.host)):
            raise CannotGenerate(
                f"{self._model.name!r} has no API key, and whoever reaches {given.host} could use it",
                model=self._model.name,
                hint="give it api_key_file, or insecure = true",
            )
        certificate = key = None
        if given.tls_cert is not None and given.tls_key is not None:
            certificate = self._files.secret("tls.crt", str(given.tls_cert))
            key = self._files.secret("tls.key", str(given.tls_key))
        return given.replace(
            host="0.0.0.0",  # noqa: S104 - in the container
            port=PORT,
            # in a container without a key, who may connect is decided by where the port is published
            insecure=not has_key,
            api_key_file=f"{SECRETS}/{self._label}-api-key" if has_key and not self._cluster else None,
            tls_cert=certificate,
            tls_key=key,
            extra=self._files.in_options(given.extra),
        )


def _last_value(option: str, words: Sequence[str]) -> str | None:
    return next((words[at + 1] for at in range(len(words) - 2, -1, -1) if words[at] == option), None)
