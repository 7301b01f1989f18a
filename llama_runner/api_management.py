"""``Management``: the part of ``Runner`` that makes nothing: builds, library, services, servers, gc, search."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.events import Noticed, Sink
from llama_runner.request.check_method_arguments import public_method
from llama_runner.store import layout
from llama_runner.store.artifacts import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.config.config import Config
    from llama_runner.config.parsed_tables import Settings
    from llama_runner.config.runner_configuration import ConfigFile
    from llama_runner.doctor import Diagnosis
    from llama_runner.doctor.machine_load import MachineLoad
    from llama_runner.library.declared_models import DeclaredModels
    from llama_runner.library.gc import Collected
    from llama_runner.library.model_library import Library
    from llama_runner.llama_cpp.installed_builds import BuildStore
    from llama_runner.request.install_service import Services
    from llama_runner.request.model_inspection import Inspection
    from llama_runner.request.remote_stores import Opened
    from llama_runner.serving.listed_server import ServerEntry
    from llama_runner.serving.log_reader import ServerLog
    from llama_runner.sessions.session_library import SessionLibrary
    from llama_runner.sources.hub.search import SearchResult
    from llama_runner.status_report import Status


class Management:
    """One root: its store, builds, services and servers. The arguments are those of ``Runner``."""

    @public_method
    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        on_event: Sink = lambda _event: None,
        lock_timeout: float = 6 * 3600,
        config: Config | str | os.PathLike[str] | None = None,
    ) -> None:
        self.root = layout.usable_root(root)
        self.store = Store(self.root, on_event)
        self._sink, self._lock_timeout = on_event, lock_timeout
        self._remotes: Opened = {}
        self._config_or_path = config

    @property
    def config(self) -> Config | None:
        """The configuration whose models can be named; None without one."""
        if self._config_or_path is not None:
            self._config_or_path = self._configured(self._config_or_path)
        return self._config_or_path

    def _configured(self, config: Config | str | os.PathLike[str] | None) -> Config:
        """Return a configuration, read if it is a path; None stands for that of this root. ``UsageError`` without."""
        found = self._config_or_path if config is None else config
        if found is None:
            from llama_runner.config.errors import no_config_error  # noqa: PLC0415 - only for mistakes

            raise no_config_error()
        if isinstance(found, (str, os.PathLike)):
            from llama_runner.config.config import Config  # noqa: PLC0415 - only with a file

            return Config.load(found)
        return found

    def _config_path(self, config: Config | str | os.PathLike[str] | None) -> Path | None:
        """Return the path of a configuration, or of that of this root, without reading it; None without one."""
        found = self._config_or_path if config is None else config
        if found is None:
            return None
        named = found if isinstance(found, (str, os.PathLike)) else found.path
        return Path(os.path.abspath(layout.user_path(named)))  # noqa: PTH100 - links are not followed

    @property
    def config_file(self) -> ConfigFile:
        """The configuration file: read, check, change. ``UsageError`` without one."""
        from llama_runner.config.errors import no_config_error  # noqa: PLC0415
        from llama_runner.config.runner_configuration import ConfigFile  # noqa: PLC0415 - not on the warm path
        from llama_runner.serving import tuned_profiles  # noqa: PLC0415

        found = self._config_or_path
        if found is None:
            raise no_config_error()
        path = layout.user_path(found) if isinstance(found, (str, os.PathLike)) else found.path
        return ConfigFile(path, lambda name: tuned_profiles.read(layout.profiles(self.root), name))

    def presets(self) -> Mapping[str, Settings]:
        """Return the presets by name: those of the configuration, and the built-in ones that it does not replace."""
        from llama_runner.config.presets import PRESETS  # noqa: PLC0415 - not on the warm path

        return PRESETS if self.config is None else self.config.presets

    @property
    def bins(self) -> BuildStore:
        """The builds of llama.cpp under this root: list, use, remove, export, take in."""
        from llama_runner.request.auto_selected_build import builds  # noqa: PLC0415 - not on the warm path

        return builds(self.store, self._sink, self._lock_timeout)

    @property
    def models(self) -> Library:
        """The models under this root: list, show, add, remove, keep, verify, export, import."""
        from llama_runner.library.model_library import Library  # noqa: PLC0415 - not on the warm path

        return Library(
            self.store,
            self._sink,
            builds=lambda: self.bins,
            lock_timeout=self._lock_timeout,
            declared=self._declared_models,
        )

    def _declared_models(self) -> DeclaredModels:
        """Return what the configuration and those that were used with this root declare, and what clients pulled."""
        from llama_runner.config.files_for_gc import used_configs  # noqa: PLC0415 - not on the warm path
        from llama_runner.library.declared_models import DeclaredModels, pulled_by_clients  # noqa: PLC0415
        from llama_runner.sources.hub.parse_model_name import bare_source  # noqa: PLC0415

        pulled = pulled_by_clients(self.store.private)
        own = [] if self.config is None else [self.config]
        found = [*own, *used_configs(self.store.private, self._sink, own)]
        found_pulled = frozenset(map(bare_source, pulled.values()))
        if not found:
            return DeclaredModels(pulled, pulled=found_pulled)
        from llama_runner.config.store_names_of_models import store_names  # noqa: PLC0415 - only with a file

        names, sources = store_names(found)
        return DeclaredModels({**pulled, **names}, sources, found_pulled)

    @property
    def sessions(self) -> SessionLibrary:
        """The sessions that the gateway keeps on disk: list, show, remove, prune, export, import."""
        from llama_runner.sessions.session_library import SessionLibrary  # noqa: PLC0415 - not on the warm path

        return SessionLibrary(self.store.private)

    @property
    def services(self) -> Services:
        """The services of the system that start servers: install, find, remove."""
        from llama_runner.request.install_service import Services  # noqa: PLC0415 - not on the warm path

        return Services(self.root)

    @property
    def servers(self) -> Path:
        """Where the servers that run are written down."""
        return layout.servers(self.store.private)

    @public_method
    def search(self, words: str, *, limit: int = 10, token_file: str | Path | None = None) -> list[SearchResult]:
        """Return repositories on the Hub with GGUF files that fit the words, the most downloaded first."""
        from llama_runner.sources.hub.search import search  # noqa: PLC0415 - not on the warm path

        return search(
            words,
            environment=os.environ,
            token_file=None if token_file is None else layout.user_path(token_file),
            limit=limit,
            notice=lambda what, text: self._sink(Noticed(what, text)),
        )

    @public_method
    def inspect(self, path: str | Path) -> Inspection:
        """Return what a GGUF file or a directory of safetensors holds. Reads headers only."""
        from llama_runner.request.model_inspection import inspect  # noqa: PLC0415 - not on the warm path

        return inspect(path)

    @public_method
    def stop(self, name: str | int | None = None) -> list[ServerEntry]:
        """End all servers, or the one of a name, a beginning of it, a URL or a process id.

        Raises ``NoSuchServer``, or ``AmbiguousName`` where several fit.
        """
        from llama_runner.serving.find_and_stop import stop  # noqa: PLC0415 - not on the warm path

        return _entries(stop(self.servers, _server_name(name), self._sink))

    @public_method
    def forget(self, name: str | int | None = None) -> list[ServerEntry]:
        """Remove the entries of servers of containers or machines that are gone: all, or those of a name.

        Nothing is ended: where such a server runs, it goes on, and no command here shows it any more.
        """
        from llama_runner.serving.find_and_stop import forget  # noqa: PLC0415 - not on the warm path

        return _entries(forget(self.servers, _server_name(name)))

    @public_method
    def restart(self, name: str | int) -> ServerEntry:
        """Start a detached server anew, or one that failed or was stopped; return its entry once it is ready.

        One that runs is not ended where it could not be started again: then there is a ``ServerError`` or another
        ``LlamaRunnerError`` that says why.
        """
        from llama_runner.serving.restart_detached import restart  # noqa: PLC0415 - not on the warm path

        return _entries([restart(self.store, str(name), self._sink)])[0]

    @public_method
    def log(self, name: str | int | None = None) -> ServerLog:
        """Return the log of a server, named as for ``stop``, also of one that has ended.

        Without a name it is the one that runs, or ran last.
        """
        from llama_runner.serving.find_and_stop import log_of  # noqa: PLC0415
        from llama_runner.serving.log_reader import ServerLog  # noqa: PLC0415 - not on the warm path

        return ServerLog(*log_of(self.servers, self.root, _server_name(name)))

    def running(self) -> list[ServerEntry]:
        """Return the servers of this root that run, with what they do now, and those in the background that failed.

        There is an event for each that another container or machine has registered here.
        """
        from llama_runner.serving.errors import OutOfReach  # noqa: PLC0415 - not on the warm path
        from llama_runner.serving.server_registry import elsewhere  # noqa: PLC0415
        from llama_runner.serving.status_probe import look_at_all  # noqa: PLC0415

        found = look_at_all(self.servers)
        for about in elsewhere(self.servers):
            self._sink(Noticed("out_of_reach", str(OutOfReach(about))))
        return found

    @public_method
    def gc(self, *, apply: bool = False, older_than: float | None = None, max_size: int | None = None) -> Collected:
        """Return what nothing needs, with the reason for each; with ``apply`` delete it.

        What was made or used in the last ``older_than`` seconds stays; by default those that the configuration says, or
        7 days. With ``max_size``, in bytes, what was used longest ago goes too until the rest fits. What a running
        process uses, and what ``models.keep``, a lock file or a configuration file names, stays.
        """
        from llama_runner.library.gc import Collector  # noqa: PLC0415 - not on the warm path
        from llama_runner.library.gc_rules import OLDER_THAN_S  # noqa: PLC0415

        table = None if self.config is None else self.config.store
        if older_than is None:
            older_than = OLDER_THAN_S if table is None or table.older_than is None else table.older_than
        if max_size is None and table is not None:
            max_size = table.max_size
        collector = Collector(
            self.store, self._sink, lambda: self.bins, self._lock_timeout, declared=self._declared_models
        )
        return (collector.collect if apply else collector.look)(older_than=older_than, max_size=max_size)

    def status(self) -> Status:
        """Say what the store holds and which servers run. Reads records only."""
        from llama_runner.status_report import read_status  # noqa: PLC0415 - not on the warm path

        return read_status(self.store, self._sink)

    def machine(self) -> MachineLoad:
        """Return how much of processors, memory, disk and devices is in use now."""
        from llama_runner.doctor.machine_load import machine_load  # noqa: PLC0415 - not on the warm path

        return machine_load(self.root)

    def doctor(self) -> Diagnosis:
        """Say what this machine is and has, and what is in the way. Uses no network, and has no secrets."""
        from llama_runner.doctor import diagnose  # noqa: PLC0415 - not on the warm path

        return diagnose(self.store)


def _server_name(name: str | int | None) -> str | None:
    """Return the name of a server as text; a process id may be a number."""
    return None if name is None else str(name)


def _entries(found: list[dict[str, Any]]) -> list[ServerEntry]:
    from llama_runner.serving.listed_server import ServerEntry  # noqa: PLC0415 - not on the warm path

    return list(map(ServerEntry, found))
