"""From what the user wrote to a model at one commit, with the files that are meant.

What was asked once is remembered (``pins``), and a rerun asks nothing. The Hub is asked about a name that was never
seen here, and about any name with ``update``. A pin that an update found becomes what the name means only once
everything of it is here (``Resolver.settle``), so the old revision stays usable until then.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import SourceError, UsageError
from llama_runner.core.events import Drifted, Noticed, Resolved, Sink, Warned
from llama_runner.core.sizes import size_text
from llama_runner.sources import quantization_types as quantizations
from llama_runner.sources.hub import file_names, file_selection
from llama_runner.sources.hub.names import meaning_of
from llama_runner.sources.hub.pins import Known, Pin, PinStore, RemoteFile
from llama_runner.sources.hub.source import HubGguf, HubSafetensors, HubSource
from llama_runner.store import layout
from llama_runner.store.errors import as_store_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llama_runner.core.converter import ConverterChoice
    from llama_runner.sources.checkpoint_quantization import Stored
    from llama_runner.sources.hub.access import Access
    from llama_runner.sources.hub.client import HubClient
    from llama_runner.sources.hub.file_selection import Wish
    from llama_runner.sources.hub.names import HubName

    Describe = Callable[[Path, ConverterChoice, bool], tuple[int | None, tuple[str, ...]]]
    """Returns context length and the weights that the index names; the flag: also the tokenizer is read."""

DEFAULT_REVISION = "main"
_COMMIT_LENGTH = 40
_SHORTEST_COMMIT = 7


def nothing_to_run_error(repo: str, commit: str, endings: list[str]) -> SourceError:
    """A repository without a GGUF model and without safetensors that could be converted."""
    return SourceError(
        f"{repo} at {commit[:12]} has neither a GGUF model nor safetensors, but {', '.join(endings) or 'no files'}",
        hint="look for the model under another name: llama-runner search WORDS",
    )


def two_quantizations_error(tag: str, option: str) -> UsageError:
    """One quantization in the name and another one by option."""
    return UsageError(f"two quantizations are asked for: :{tag} and --quantization {option}", hint="give one")


def only_for_gguf_error(repo: str, options: list[str]) -> UsageError:
    """Wishes that choose among GGUF files, of a repository that has none."""
    return UsageError(
        f"{' and '.join(options)} choose among GGUF files, and {repo} has none",
        hint="choose what is made of its safetensors with --quantization",
    )


def odd_index_error(repo: str, names: list[str]) -> SourceError:
    """The index names weights that are not called as a model's are, beside others that are."""
    return SourceError(
        f"the index of {repo} names {', '.join(names[:4])}, beside weights that are called as a model's are",
        hint="download what the model consists of yourself, and pass the directory with --safetensors-dir",
    )


def nothing_so_small_error(weight_bytes: int, limit: int) -> SourceError:
    """No quantization makes a file of the size that was asked for."""
    return SourceError(
        f"weights of {size_text(weight_bytes)} cannot be made to fit into {size_text(limit)}",
        hint="allow more with --max-size, or choose a smaller model",
    )


def missing_on_hub_error(repo: str, names: list[str]) -> SourceError:
    """Files that conversion cannot do without are not in the repository."""
    return SourceError(
        f"{repo} is not complete: {', '.join(names[:4])} missing",
        hint="tell its makers, or use another revision: ORG/MODEL@REV",
    )


class Resolver:
    """Resolves names. One object for one request."""

    def __init__(
        self,
        private: Path,
        *,
        access: Callable[[], Access],
        sink: Sink,
        offline: bool = False,
        update: bool = False,
        remember: bool = True,
        choose: Callable[[Path, Callable[[str], bool]], tuple[ConverterChoice, Stored | None]],
        describe: Describe,
    ) -> None:
        """Make a resolver that keeps pins below ``private`` if it is to ``remember``.

        ``choose`` decides by its config.json who converts a model, and says how its weights are stored; ``describe``
        reads its small files.
        """
        self.pins = PinStore(layout.pins(private), lambda text: sink(Warned("damaged_pin", text)))
        self._descriptions = layout.descriptions(private)
        self._access, self._sink = access, sink
        self._offline, self._update, self._remember = offline, update, remember
        self._choose_converter, self._describe = choose, describe
        self._found_access: Access | None = None
        self._unsettled: list[tuple[Pin, str]] = []

    @property
    def access(self) -> Access:
        """How the Hub is asked; looked for when it is needed first."""
        if self._found_access is None:
            self._found_access = self._access()
        return self._found_access

    def resolve(self, name: HubName, wish: Wish, *, own_making: bool = False) -> HubSource:
        """Return the model that a name means; a ``SourceError`` when there is none.

        With ``own_making`` the weights are taken rather than a GGUF file, where a repository has both.
        """
        known = Known({}, {}) if self._update else self.pins.known(name.repo)
        revision, quantization = self._meaning(name, known)
        if quantization is not None:
            if wish.quantization is not None and not _same(quantization, wish.quantization):
                raise two_quantizations_error(quantization, wish.quantization)
            wish = wish.replace(quantization=quantization)
        if name.file is not None:
            wish = wish.replace(filename=name.file)
        pin = known.pin(revision) or self._ask(name.repo, revision)
        return self._choose(pin, revision, wish, own_making=own_making)

    def description(self, pin: Pin) -> Path:
        """Return where the small files of a model to be converted are, once they were read."""
        return self._descriptions / pin.bucket

    def settle(self) -> None:
        """Everything of what was resolved is here: let the names mean it from now on."""
        for pin, revision in self._unsettled:
            self.pins.add(pin.repo, self.pins.known(pin.repo).pins.get(pin.commit, pin), names=[revision])
        self._unsettled.clear()

    def _client(self, what: str) -> HubClient:
        from llama_runner.sources.hub.client import HubClient  # noqa: PLC0415 - not on the warm path
        from llama_runner.sources.hub.errors import offline_error  # noqa: PLC0415

        if self._offline:
            raise offline_error(what)
        return HubClient(self.access, notice=self._notice)

    def _notice(self, what: str, text: str) -> None:
        self._sink(Noticed(what, text))

    def _meaning(self, name: HubName, known: Known) -> tuple[str, str | None]:
        """Return the revision that is meant, and the quantization if the name says one."""
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
        if meaning_of(tag, branches=branches, tags=list(refs.tags), commits=commits) == "revision":
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
        """Ask the Hub what a revision is now, and remember the answer."""
        pin = self._client(f"{repo} at {revision}").pin(repo, revision)
        file_names.check_names(repo, pin.files)
        known = self.pins.known(repo)
        before = known.pin(revision)
        if pin.commit in known.pins:
            pin = known.pins[pin.commit]  # with the digests that were learned
        if before is None or before.commit == pin.commit:
            self._sink(Resolved(repo, revision, pin.commit, unchanged=before is not None))
            if self._remember:
                self.pins.add(repo, pin, names=[revision])
        else:
            self._sink(_drift(revision, before, pin))
            self._unsettled.append((pin, revision))
        return pin

    def _choose(self, pin: Pin, revision: str, wish: Wish, *, own_making: bool) -> HubSource:
        has_gguf, options = file_selection.has_models(pin.files), _gguf_options(wish)
        missing: file_selection.NoSuchQuantization | None = None
        if has_gguf and not (own_making and not options and file_selection.weights_for_conversion(pin.files)):
            try:
                return HubGguf(pin, revision, file_selection.select(pin.files, wish))
            except file_selection.NoSuchQuantization as error:
                if not _can_be_made(str(wish.quantization)):
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
        return self._described(pin, revision, self._quantization(weights, wish))

    def _quantization(self, weights: tuple[RemoteFile, ...], wish: Wish) -> str | None:
        """Return what to make of the weights: as asked for, else the best within the size that was asked for."""
        if wish.quantization is not None or wish.max_size is None:
            return wish.quantization
        size = sum(file.size for file in weights if _is_weights(file))
        best = quantizations.best_within(size, wish.max_size)
        if best is None:
            raise nothing_so_small_error(size, wish.max_size)
        self._notice("quantization_chosen", f"{best} is the best that can be made within that size")
        return best

    def _described(self, pin: Pin, revision: str, quantization: str | None) -> HubSafetensors:
        """Read what describes the model before any of its weights, and stop here if it cannot be converted."""
        directory, config = self.description(pin), pin.file("config.json")
        if config is None:
            raise missing_on_hub_error(pin.repo, ["config.json"])
        if pin.described and (directory / config.name).is_file():
            return self._found(pin, revision, quantization, directory)
        with self._reading(directory) as target:
            self._fetch(pin, [config], target)
            found = self._found(pin, revision, quantization, target)
            context = self._describe(target, found.choice, False)[0]
            found, weights = found.replace(context_length=context), found.files
            if not self._remember:  # a plan: the tokenizer may be tens of megabytes, and nothing is kept
                return found
            digests = self._fetch(pin, tuple(file for file in weights if not _is_weights(file)), target)
            # the tokenizer is here now: which corrections concern the model is decided again, as every later start does
            found = self._found(pin, revision, quantization, target).replace(context_length=context)
            named = self._describe(target, found.choice, True)[1]
            if missing := [name for name in named if pin.file(name) is None]:
                raise missing_on_hub_error(pin.repo, missing)
            if other := [name for name in named if name not in {file.name for file in weights}]:
                raise odd_index_error(pin.repo, other)
        pin = pin.knowing(digests)
        self.pins.add(pin.repo, pin)
        by_name = {file.name: file for file in pin.files}
        return found.replace(pin=pin, files=tuple(by_name[file.name] for file in weights))

    def _found(self, pin: Pin, revision: str, quantization: str | None, directory: Path) -> HubSafetensors:
        """Return what a config.json says of how a model is converted."""
        choice, how = self._choose_converter(directory, lambda name: pin.file(name) is not None)
        files = file_selection.weights_for_conversion(pin.files, choice.reads)
        assert files is not None, "there are weights, whatever else is read"
        return HubSafetensors(pin, revision, files, quantization, choice, stored=how)

    @contextmanager
    def _reading(self, directory: Path) -> Iterator[Path]:
        """Give the directory for small files: one that stays, or one that is gone afterwards."""
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
        from llama_runner.sources.hub.download import transfer  # noqa: PLC0415
        from llama_runner.sources.hub.errors import NotFetched, offline_error  # noqa: PLC0415 - not on the warm path

        if self._offline:
            raise offline_error(f"{files[0].name} of {pin.repo}")
        try:
            return transfer(
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


def _drift(revision: str, before: Pin, after: Pin) -> Drifted:
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
            quantizations.canonical(name, imatrix=True)  # without one, that is what will be told
    except UsageError:
        return False
    return True


def _gguf_options(wish: Wish) -> list[str]:
    options = {"--filename": wish.filename, "--pattern": wish.pattern}
    return [name for name, value in options.items() if value is not None]
