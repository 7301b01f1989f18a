"""Resolves a name on the Hub to a model at one commit, with its files.

Results are stored (``pins``), so a rerun makes no request. The Hub is queried for a new name, and for any name with
``update``. A pin that an update found replaces the stored one only when all of its files are here
(``Resolver.record_names``), so the old revision stays usable until then.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import SourceError, UsageError
from llama_runner.core.events import Drifted, Noticed, Resolved, Sink
from llama_runner.core.immutable_values import Value
from llama_runner.core.sizes import size_text
from llama_runner.sources import quantization_types as quantizations
from llama_runner.sources.hub import file_names, file_selection
from llama_runner.sources.hub.parse_model_name import classify_tag
from llama_runner.sources.hub.pins import Pin, PinRecord, RemoteFile, open_pins
from llama_runner.sources.hub.source import HubGguf, HubSafetensors, HubSource
from llama_runner.store import layout
from llama_runner.store.errors import as_store_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llama_runner.core.converter_choice import ConverterChoice
    from llama_runner.sources.checkpoint_quantization import CheckpointQuantization
    from llama_runner.sources.hub.client import HubClient
    from llama_runner.sources.hub.endpoint_and_token import Access
    from llama_runner.sources.hub.file_selection import FileCriteria
    from llama_runner.sources.hub.parse_model_name import HubName

    Describe = Callable[[Path, ConverterChoice, bool], tuple[int | None, tuple[str, ...]]]
    """Returns the context length and the weights that the index names; with the flag it reads the tokenizer too."""

DEFAULT_REVISION = "main"
_COMMIT_LENGTH = 40
_SHORTEST_COMMIT = 7


def nothing_to_run_error(repo: str, commit: str, endings: list[str]) -> SourceError:
    """Return the error for a repository without GGUF models and safetensors."""
    return SourceError(
        f"{repo} at {commit[:12]} has neither a GGUF model nor safetensors, but {', '.join(endings) or 'no files'}",
        hint="look for the model under another name: llama-runner search WORDS",
    )


def two_quantizations_error(tag: str, option: str) -> UsageError:
    """Return the error for different quantizations in the name and by option."""
    return UsageError(f"two quantizations are asked for: :{tag} and --quantization {option}", hint="give one")


def only_for_gguf_error(repo: str, options: list[str]) -> UsageError:
    """Return the error for options that select GGUF files in a repository without any."""
    return UsageError(
        f"{' and '.join(options)} choose among GGUF files, and {repo} has none",
        hint="choose what is made of its safetensors with --quantization",
    )


def odd_index_error(repo: str, names: list[str]) -> SourceError:
    """Return the error for an index that names weights outside ``model*.safetensors``."""
    return SourceError(
        f"the index of {repo} names {', '.join(names[:4])} beside weights that match model*.safetensors",
        hint="download the model's files yourself, and pass the directory with --safetensors-dir",
    )


def nothing_so_small_error(weight_bytes: int, limit: int) -> SourceError:
    """Return the error for a size that no quantization reaches."""
    return SourceError(
        f"weights of {size_text(weight_bytes)} cannot be made to fit into {size_text(limit)}",
        hint="allow more with --max-size, or choose a smaller model",
    )


def missing_on_hub_error(repo: str, names: list[str]) -> SourceError:
    """Return the error for files that conversion needs and the repository lacks."""
    return SourceError(
        f"{repo} is not complete: {', '.join(names[:4])} missing",
        hint="tell its makers, or use another revision: ORG/MODEL@REV",
    )


class LockedCommit(Value):
    """What a revision meant when it was locked."""

    revision: str
    commit: str


class Resolver:
    """Resolves names for one request."""

    def __init__(
        self,
        private: Path,
        *,
        access: Callable[[], Access],
        sink: Sink,
        offline: bool = False,
        update: bool = False,
        remember: bool = True,
        choose: Callable[[Path, Callable[[str], bool]], tuple[ConverterChoice, CheckpointQuantization | None]],
        describe: Describe,
    ) -> None:
        """Make a resolver; with ``remember`` it stores pins below ``private``.

        ``choose`` selects the converter by config.json and returns the stored weights' quantization; ``describe`` reads
        the model's small files.
        """
        self.pins = open_pins(private, sink)
        self._descriptions = layout.descriptions(private)
        self._access, self._sink = access, sink
        self._offline, self._update, self._remember = offline, update, remember
        self._choose_converter, self._describe = choose, describe
        self._found_access: Access | None = None
        self._unsettled: list[tuple[Pin, str]] = []

    @property
    def access(self) -> Access:
        """Endpoint and token, found on first use."""
        if self._found_access is None:
            self._found_access = self._access()
        return self._found_access

    def resolve(
        self, name: HubName, criteria: FileCriteria, *, own_making: bool = False, locked: LockedCommit | None = None
    ) -> HubSource:
        """Return the model of a name; raises ``SourceError``.

        With ``own_making``, safetensors are preferred to GGUF files. With ``locked``, the Hub is asked for that commit
        only, whatever the branch is now.
        """
        known = PinRecord({}, {}) if self._update else self.pins.read(name.repo)
        if locked is None:
            revision, quantization = self._meaning(name, known)
        else:
            revision, quantization = locked.revision, None if name.tag == locked.revision else name.tag
        if quantization is not None:
            if criteria.quantization is not None and not _same(quantization, criteria.quantization):
                raise two_quantizations_error(quantization, criteria.quantization)
            criteria = criteria.replace(quantization=quantization)
        if name.file is not None:
            criteria = criteria.replace(filename=name.file)
        commit = revision if locked is None else locked.commit
        pin = known.pin(commit) or self._ask(name.repo, commit)
        return self._choose(pin, revision, criteria, own_making=own_making)

    def pin_of(self, repo: str, revision: str | None) -> tuple[Pin, str]:
        """Return the pin of a revision, by default of the main branch, and that revision."""
        revision = revision or DEFAULT_REVISION
        known = PinRecord({}, {}) if self._update else self.pins.read(repo)
        return known.pin(revision) or self._ask(repo, revision), revision

    def small_json(self, pin: Pin, file: RemoteFile) -> tuple[Pin, dict[str, Any]]:
        """Return a JSON object of a repository, and the pin with the digest of its file. It is fetched once."""
        directory = self.description_directory(pin)
        if (directory / file.name).is_file():
            return pin, _object(pin, directory / file.name)
        with self._reading(directory) as target:
            digests = self._fetch(pin, [file], target)
            found = _object(pin, target / file.name)
        pin = pin.with_digests(digests)
        if self._remember:
            self.pins.add(pin.repo, pin)
        return pin, found

    def description_directory(self, pin: Pin) -> Path:
        """Return the directory of the small files of a model to convert."""
        return self._descriptions / pin.artifact_directory

    def record_names(self) -> None:
        """Store that the resolved names mean the new pins; call it when all files are here."""
        for pin, revision in self._unsettled:
            self.pins.add(pin.repo, self.pins.read(pin.repo).pins.get(pin.commit, pin), names=[revision])
        self._unsettled.clear()

    def _client(self, what: str) -> HubClient:
        from llama_runner.sources.hub.client import HubClient  # noqa: PLC0415 - not on the warm path
        from llama_runner.sources.hub.errors import offline_error  # noqa: PLC0415

        if self._offline:
            raise offline_error(what)
        return HubClient(self.access, notice=self._notice)

    def _notice(self, what: str, text: str) -> None:
        self._sink(Noticed(what, text))

    def _meaning(self, name: HubName, known: PinRecord) -> tuple[str, str | None]:
        """Return the revision, and the quantization if the name has one."""
        tag = name.tag
        if tag is None:
            return name.revision or DEFAULT_REVISION, None
        if name.revision is not None or tag in known.quantizations:
            return name.revision or DEFAULT_REVISION, tag
        if known.pin(tag) is not None:
            return tag, None
        refs = self._client(f"what {tag} means in {name}").refs(name.repo)
        commits = [tag] if self._is_commit(name.repo, tag) else []
        branches = [*refs.branches, *refs.pull_requests]
        if classify_tag(tag, branches=branches, tags=list(refs.tags), commits=commits) == "revision":
            return tag, None
        text = f"{name.repo} has no branch, tag or commit called {tag}, so it is taken for the quantization"
        self._notice("tag_is_quantization", text)
        if self._remember:
            self.pins.add(name.repo, quantizations=[tag])
        return DEFAULT_REVISION, tag

    def _is_commit(self, repo: str, tag: str) -> bool:
        from llama_runner.sources.hub.errors import NoSuchRevision  # noqa: PLC0415 - not on the warm path

        if not _SHORTEST_COMMIT <= len(tag) <= _COMMIT_LENGTH or tag.strip("0123456789abcdef"):
            return False
        try:
            self._client(f"whether {tag} is a commit of {repo}").pin(repo, tag)
        except NoSuchRevision:
            return False
        return True

    def _ask(self, repo: str, revision: str) -> Pin:
        """Fetch the pin of a revision from the Hub, and store it."""
        pin = self._client(f"{repo} at {revision}").pin(repo, revision)
        file_names.check_names(repo, pin.files)
        known = self.pins.read(repo)
        before = known.pin(revision)
        if pin.commit in known.pins:
            pin = known.pins[pin.commit]  # with the digests that were learned
        if before is None or before.commit == pin.commit:
            self._sink(Resolved(repo, revision, pin.commit, unchanged=before is not None))
            if self._remember:
                self.pins.add(repo, pin, names=[revision])
        else:
            self._sink(drift(revision, before, pin))
            self._unsettled.append((pin, revision))
        return pin

    def _choose(self, pin: Pin, revision: str, criteria: FileCriteria, *, own_making: bool) -> HubSource:
        has_gguf, options = file_selection.has_models(pin.files), _gguf_options(criteria)
        missing: file_selection.NoSuchQuantization | None = None
        if has_gguf and not (own_making and not options and file_selection.weights_for_conversion(pin.files)):
            try:
                return HubGguf(pin, revision, file_selection.select(pin.files, criteria))
            except file_selection.NoSuchQuantization as error:
                if not _can_be_made(str(criteria.quantization)):
                    raise
                missing = error
        weights = file_selection.weights_for_conversion(pin.files)
        if weights is None:
            raise missing or nothing_to_run_error(
                pin.repo, pin.commit, sorted({_ending(file.name) for file in pin.files})
            )
        if options:
            raise missing or only_for_gguf_error(pin.repo, options)
        if missing is not None:
            self._notice("converted_here", f"{missing}\nit is made here from the safetensors beside them")
        return self._described(pin, revision, self._quantization(weights, criteria))

    def _quantization(self, weights: tuple[RemoteFile, ...], criteria: FileCriteria) -> str | None:
        """Return the quantization to make: the requested one, else the best within the maximum size."""
        if criteria.quantization is not None or criteria.max_size is None:
            return criteria.quantization
        size = sum(file.size for file in weights if _is_weights(file))
        best = quantizations.best_within(size, criteria.max_size)
        if best is None:
            raise nothing_so_small_error(size, criteria.max_size)
        self._notice("quantization_chosen", f"{best} is the best quantization within that size")
        return best

    def _described(self, pin: Pin, revision: str, quantization: str | None) -> HubSafetensors:
        """Read the model's small files before its weights; raises if it cannot be converted."""
        directory, config = self.description_directory(pin), pin.file("config.json")
        if config is None:
            raise missing_on_hub_error(pin.repo, ["config.json"])
        if pin.described and (directory / config.name).is_file():
            return self._found(pin, revision, quantization, directory)
        with self._reading(directory) as target:
            self._fetch(pin, [config], target)
            found = self._found(pin, revision, quantization, target)
            context = self._describe(target, found.choice, False)[0]
            found, weights = found.replace(context_length=context), found.files
            if not self._remember:  # a plan keeps nothing, and the tokenizer may be tens of megabytes
                return found
            digests = self._fetch(pin, tuple(file for file in weights if not _is_weights(file)), target)
            # with the tokenizer here, the conversion's revision is decided again, as on every later start
            found = self._found(pin, revision, quantization, target).replace(context_length=context)
            named = self._describe(target, found.choice, True)[1]
            if missing := [name for name in named if pin.file(name) is None]:
                raise missing_on_hub_error(pin.repo, missing)
            if other := [name for name in named if name not in {file.name for file in weights}]:
                raise odd_index_error(pin.repo, other)
        pin = pin.with_digests(digests)
        self.pins.add(pin.repo, pin)
        by_name = {file.name: file for file in pin.files}
        return found.replace(pin=pin, files=tuple(by_name[file.name] for file in weights))

    def _found(self, pin: Pin, revision: str, quantization: str | None, directory: Path) -> HubSafetensors:
        """Return the source, with the converter that config.json requires."""
        choice, how = self._choose_converter(directory, lambda name: pin.file(name) is not None)
        files = file_selection.weights_for_conversion(pin.files, choice.reads)
        assert files is not None, "the weights do not depend on the patterns"
        return HubSafetensors(pin, revision, files, quantization, choice, checkpoint_quantization=how)

    @contextmanager
    def _reading(self, directory: Path) -> Iterator[Path]:
        """Yield the directory for small files: a permanent one, or a temporary one for a plan."""
        if self._remember:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise as_store_error(error, directory) from error
            yield directory
            return
        from pathlib import Path  # noqa: PLC0415 - as below
        from tempfile import TemporaryDirectory  # noqa: PLC0415 - not on the warm path

        with TemporaryDirectory() as temporary:
            yield Path(temporary)

    def _fetch(self, pin: Pin, files: list[RemoteFile] | tuple[RemoteFile, ...], directory: Path) -> dict[str, Any]:
        from llama_runner.sources.hub.download import download_files  # noqa: PLC0415
        from llama_runner.sources.hub.errors import NotFetched, offline_error  # noqa: PLC0415 - not on the warm path

        if self._offline:
            raise offline_error(f"{files[0].name} of {pin.repo}")
        try:
            return download_files(
                files,
                pin=pin,
                directory=directory,
                access=self.access,
                on_progress=lambda _done, _total: None,
                notice=self._notice,
                cancelled=lambda: False,  # Ctrl-C comes as an exception here
            )
        except NotFetched as error:  # nothing is downloaded yet: the name is being resolved
            raise error.reason from error
        except OSError as error:
            raise as_store_error(error, directory) from error


def _object(pin: Pin, path: Path) -> dict[str, Any]:
    """Return a JSON object that was fetched; ``SourceError``."""
    from llama_runner.system.files import read_json  # noqa: PLC0415 - few sources have one

    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise SourceError(f"{pin.repo}/{path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{pin.repo}/{path.name} is not a JSON object")
    return found


def drift(revision: str, before: Pin, after: Pin) -> Drifted:
    """Return the files in which two commits of a repository differ."""
    old, new = ({file.name: (file.size, file.sha256 or file.blob) for file in pin.files} for pin in (before, after))
    return Drifted(
        repo=after.repo,
        revision=revision,
        old=before.commit,
        new=after.commit,
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
    )


def _is_weights(file: RemoteFile) -> bool:
    return file.name.endswith(".safetensors")


def _ending(name: str) -> str:
    last = name.rpartition("/")[2]
    return f"*.{last.rpartition('.')[2]}" if "." in last.lstrip(".") else last


def _same(one: str, other: str) -> bool:
    spelled = [quantizations.canonical_spelling(name) for name in (one, other)]
    return len({quantizations.ALIASES.get(name, name) for name in spelled}) == 1


def _can_be_made(quantization: str) -> bool:
    try:
        for name in quantization.split(","):
            quantizations.canonical_type(name, imatrix=True)  # a missing matrix is reported later
    except UsageError:
        return False
    return True


def _gguf_options(criteria: FileCriteria) -> list[str]:
    options = {"--filename": criteria.filename, "--pattern": criteria.pattern}
    return [name for name, value in options.items() if value is not None]
