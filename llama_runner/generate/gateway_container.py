"""The container of several models: the gateway, with the configuration file and all that it names. Pure."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from llama_runner.config.toml import loads
from llama_runner.generate.container import FIRST_PORT, OF_IMAGE, PATHS, PORT, Workload
from llama_runner.generate.container_mounts import ContainerFiles
from llama_runner.generate.errors import CannotGenerate
from llama_runner.serving.llama_server.launch_spec import is_loopback_or_socket, is_socket
from llama_runner.sources.parse_lora_option import is_bare_name, is_local, parse_adapter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.config.config import Config
    from llama_runner.config.layers import Resolved
    from llama_runner.generate.container import MemoryNeed

NAME = "llama-gateway"
DIRECTORY = "/etc/llama-runner"
"""The directory of the configuration file in the container."""
OVERLAY = "/etc/llama-gateway/llama-runner.toml"
"""The file that is read there: it includes the user's, and says what is different in the container."""
PRIVATE = "/run/private"
"""In a cluster: copies of secrets that only the user of the container may read."""
_SECRETS = {"api_key_file": "api-key", "limits_file": "limits", "tls_cert": "tls.crt", "tls_key": "tls.key"}


def gateway(
    config: Config,
    models: Sequence[Resolved],
    *,
    cluster: bool = False,
    remote_store: str | None = None,
    memory: MemoryNeed | None = None,
) -> Workload:
    """Return the container that serves the models behind one endpoint. Raises ``CannotGenerate``."""
    container = _Gateway(config, cluster=cluster)
    for each in models:
        container.add(each)
    return container.workload(list(dict.fromkeys(each.model.name for each in models)), remote_store, memory)


class _Gateway:
    def __init__(self, config: Config, *, cluster: bool) -> None:
        self._config, self._cluster, self._base = config, cluster, config.path.parent
        self._files = ContainerFiles("gateway", NAME, cluster=cluster, place=self._place)
        self._private: dict[str, str] = {}
        self._tokens: dict[str, str] = {}

    def _place(self, path: PurePath) -> str:
        """Return the path of a file in the container; relative paths of the configuration stay valid."""
        below = path.is_relative_to(self._base)
        return f"{DIRECTORY}/{path.relative_to(self._base).as_posix()}" if below else path.as_posix()

    def add(self, resolved: Resolved) -> None:
        """Add the files and secrets that a model names."""
        name, model = resolved.names[0], resolved.model
        if programs := sorted(OF_IMAGE & set(resolved.values)):
            raise _not_there(name, f"{', '.join(programs)}: the image has the programs")
        if "profile" in resolved.settings:
            raise _not_there(name, "a profile, which was measured on this machine")
        keywords: dict[str, Any] = dict(resolved.keywords)
        for key, value in keywords.items():
            if key == "token_file":
                token = self._tokens.setdefault(str(value), f"hub-token-{len(self._tokens)}")
                self._files.secret(token, str(value), target=self._place(PurePath(str(value))))
            elif key in PATHS:
                self._files.file(str(value))
        if resolved.source is not None and PurePath(resolved.source).is_absolute():
            self._files.file(resolved.source)
        adapters = [parse_adapter(each).where for each in keywords.get("lora", ())]
        for where in (*adapters, *(adapter.where for adapter in model.adapters.values())):
            if is_local(where) and not is_bare_name(where):
                self._files.file(where)
        self._files.in_options(resolved.server.extra)

    def workload(self, names: list[str], remote_store: str | None, memory: MemoryNeed | None) -> Workload:
        """Return the container."""
        chosen = () if len(names) == len(self._config.models) else tuple(names)
        host, port = self._published()
        texts = {OVERLAY: self._overlay(host, remote_store)}
        for path, text in self._config.texts.items():
            if loads(text).get("environment"):
                raise _not_there(str(path), "`environment`: the container has no variables of this machine")
            if self._cluster:
                texts[self._place(path)] = text
            else:
                self._files.file(str(path))
        words = f"--config={OVERLAY}"
        return Workload(
            name="gateway",
            label=NAME,
            arguments=("up", *chosen, words),
            preparations=tuple(("prepare", name, words) for name in names),
            host=host,
            port=port,
            mounts=self._files.mounts,
            secrets=self._files.secrets,
            memory=memory,
            is_encrypted=self._config.gateway.tls_cert is not None,
            metric="llama_runner_in_flight",
            texts=texts,
            private=self._private,
        )

    def _published(self) -> tuple[str, int]:
        for address in self._config.gateway.listen or ():
            host, _, port = address.rpartition(":")
            if not is_socket(address) and port.isdigit():
                return host.strip("[]") or "127.0.0.1", int(port) or FIRST_PORT
        return "127.0.0.1", FIRST_PORT

    def _overlay(self, host: str, remote_store: str | None) -> str:
        """Return the file that includes the user's."""
        table: dict[str, Any] = {"listen": [f"0.0.0.0:{PORT}"]}
        declared = self._config.gateway
        for key, secret in _SECRETS.items():
            if (path := getattr(declared, key)) is not None or (key == "api_key_file" and self._needs_key()):
                table[key] = self._secret(secret, str(path or "FILE"))
        if not {"api_key_file", "limits_file"} & set(table):
            if not (declared.insecure or is_loopback_or_socket(host)):
                raise CannotGenerate(
                    f"the gateway has no API key, and whoever reaches {host} could use it",
                    hint="give [gateway] api_key_file, or insecure = true",
                )
            table["insecure"] = True
        lines = [f"include = [{_toml(self._place(self._config.path))}]", "", "[gateway]"]
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
        if store := remote_store:
            lines += ["", "[store]", f"remote_store = {_toml(self._store(store))}"]
        return "\n".join(lines) + "\n"

    def _needs_key(self) -> bool:
        return self._cluster and not self._config.gateway.insecure and self._config.gateway.limits_file is None

    def _secret(self, key: str, source: str) -> str:
        target = self._files.secret(key, source)
        if not self._cluster or key.startswith("tls"):
            return target
        self._private[f"{PRIVATE}/{key}"] = target  # files of a cluster's Secret can be read by a group
        return f"{PRIVATE}/{key}"

    def _store(self, address: str) -> str:
        return address if "://" in address else self._files.file(address)


def _toml(value: Any) -> str:  # noqa: ANN401 - text, a list of texts, a flag
    return json.dumps(value, ensure_ascii=False)


def _not_there(name: str, what: str) -> CannotGenerate:
    hint = "leave it out, or pass --per-model for a container of each model"
    return CannotGenerate(f"{name!r} has {what}", model=name, hint=hint)
