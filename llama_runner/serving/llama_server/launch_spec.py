"""What to launch, as a value, and the argv and environment that follow from it. Pure."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.immutable_values import Value, field
from llama_runner.core.loopback import is_loopback
from llama_runner.core.option_values import checked_value, texts, unexpected_keyword_error, wrong_value_error
from llama_runner.llama_cpp.program_environment import MODEL_SOURCES, program_environment
from llama_runner.serving.llama_server.option_definitions import SERVER
from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.core.adapter_scales import AdapterScales

DEFAULT_CONTEXT = 4096

_SOURCES = "-m --model -mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file"
MODEL = "a model source"
_OURS = {**dict.fromkeys(_SOURCES.split(), MODEL), "--host": "--host", "--port": "--port"}
_OURS |= {"--api-key": "--api-key-file or LLAMA_API_KEY", "--api-key-file": "--api-key-file"}
_OURS |= dict.fromkeys(("-hft", "--hf-token"), "HF_TOKEN or --token-file")
_OURS |= {"--ssl-cert-file": "--tls-cert", "--ssl-key-file": "--tls-key"}
"""Options of llama-server that are refused because the readiness check needs ours, and what to use instead."""

_HOST_CACHE = ("-cram", "--cache-ram")
_SECRET = frozenset({"--api-key", "-hft", "--hf-token"})
"""Of these, options whose value no error shows."""

_PRESET = r"--(embd|fim|gpt-oss|vision)-.+-(default|spec)"
"""Options of llama-server that download and serve a model of its own choice."""


class ServerOptions(Value):
    """Options of the server."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0: the system chooses a free one."""
    ctx_size: int | Literal["auto"] | None = None
    """Tokens. None: 4096, or what the model was trained for if that is less; ``auto``: what fits (``--fit``)."""
    threads: int | None = None
    """None: the physical cores that this process may use."""
    gpu_layers: int | Literal["auto", "all"] | None = None
    """Passed only when given."""
    extra: tuple[str, ...] = ()
    """More options of llama-server, unchanged but for relative paths, which become absolute."""
    inherit_environment: bool = False
    """Whether all of our environment reaches the server, so that ``LLAMA_ARG_*`` variables configure it."""
    load_timeout: float = 300.0
    """Seconds that the server may be silent and not ready."""
    purpose: Literal["auto", "text", "embeddings", "rerank"] = "auto"
    """``auto``: what the model is made for. Options and variables that say it themselves count more."""
    canary: bool = False
    """Whether a server is ready only when it has given a token."""
    api_key: str | None = field(default=None, role="secret")
    """The key that the server accepts; ``auto``: a new one, ``Server.api_key``. None: those of ``LLAMA_API_KEY``."""
    api_key_file: Path | None = None
    """Keys that the server accepts, one per line; for its owner's eyes only."""
    insecure: bool = False
    """Whether other machines may use the server without a key."""
    force_memory: bool = False
    """Whether to start it although memory is insufficient."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    names: tuple[str, ...] = ()
    """Names that the API gives the model; ``ps`` shows the first. (): the name that the model has by itself."""
    fixed: tuple[str, ...] = ()
    """Fields that no ``LLAMA_ARG_*`` variable changes although they have their defaults."""

    def __post_init__(self) -> None:
        """Convert values that are only written otherwise; ``UsageError`` names a field with another kind of value."""
        own = self.__dict__
        for option in SERVER:
            own[option.name] = checked_value(option, own[option.name])
            if option.kind == "file" and own[option.name] is not None:
                own[option.name] = layout.user_path(own[option.name]).absolute()
        if not self.host:
            raise wrong_value_error("host", "an address", self.host, hint="leave it out for 127.0.0.1")
        for name in ("extra", "fixed", "names"):
            try:
                own[name] = tuple(map(os.fspath, texts(own[name])))
            except TypeError:
                raise wrong_value_error(name, "a list of texts", own[name]) from None

    def _no_field_error(self, name: str) -> TypeError:
        return unexpected_keyword_error(name, self.fields)

    @property
    def passes_on(self) -> bool:
        """Whether options reach llama-server that are not ours."""
        return bool(self.extra) or self.inherit_environment


class ServerSpec(Value):
    """A server to launch."""

    binary: Path
    model: Path
    projector: Path | None
    """The multimodal projector (mmproj), for a model that has one."""
    alias: str
    """The name that the API gives the model."""
    host: str
    port: int
    ctx_size: int | None
    threads: int
    gpu_layers: int | str | None
    extra: tuple[str, ...]
    inherit_environment: bool
    load_timeout: float
    canary: bool = False
    api_key: str | None = field(default=None, role="secret")
    api_key_file: Path | None = None
    insecure: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    adapters: tuple[Path, ...] = ()
    """LoRA adapters; their ids are their positions."""
    adapter_names: tuple[str, ...] = ()
    """What requests call them."""
    adapter_scales: tuple[float, ...] = ()
    """Their factors for requests that choose no adapters; (): 1 for each."""
    force_memory: bool = False
    further_names: tuple[str, ...] = ()
    """Names that the API gives the model beside ``alias``."""

    @property
    def socket(self) -> Path | None:
        """The UNIX socket that it listens at instead of a port; llama-server recognises one by its name."""
        return Path(self.host) if is_socket(self.host) else None

    @property
    def digest(self) -> str:
        """Identifies the launch; timeouts are not part of it. It contains no secret."""
        from llama_runner.core.short_sha256 import sha256  # noqa: PLC0415 - not for plan

        key = self.api_key if self.api_key in (None, "auto") else "given"
        what = [*self.argv(), str(key), str(self.inherit_environment)]
        what += [str(self.adapter_scales)] if self.sets_scales else []
        return sha256("\0".join(what).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def url(self) -> str:
        """The base address; without a meaning while the port is 0."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """Return the base address once the port is known; ``unix:///path.sock:/prefix`` for a socket."""
        if is_socket(self.host):
            return f"unix://{self.host}{self.api_prefix and ':'}{self.api_prefix}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls_cert is None else 'https'}://{host}:{port}{self.api_prefix}"

    @property
    def api_prefix(self) -> str:
        """The API prefix, if the extra options have one."""
        return _value_of("--api-prefix", self.extra) or ""

    @property
    def names(self) -> set[str]:
        """The names under which the model may be listed."""
        return {
            name.strip()
            for names in self._chosen_aliases or [self.alias, *self.further_names]
            for name in names.split(",")
        } - {""}

    @property
    def _chosen_aliases(self) -> list[str]:
        """The names that the extra options give the model, instead of ours."""
        return [*_values_of("--alias", self.extra), *_values_of("-a", self.extra)]

    def api_key_in(self, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
        """Return a key that the server accepts, or else the file that holds its keys, for the server's environment."""
        file = str(self.api_key_file) if self.api_key_file else environment.get("LLAMA_ARG_API_KEY_FILE")
        return self.api_key if self.api_key not in (None, "auto") else first_key_in(environment), file

    def argv(self) -> list[str]:
        """Return the words that start the server.

        ``-m`` always: without it the server would route over the user's whole Hugging Face cache. CORS is
        narrowed: by default any web page may read answers. It does not keep a page from sending requests.
        """
        words = [str(self.binary), "-m", str(self.model)]
        if self.projector is not None and not (_values_of("--mmproj", self.extra) or _values_of("-mm", self.extra)):
            words += ["--mmproj", str(self.projector)]
        words += self.adapter_words
        words += [] if self._chosen_aliases else ["--alias", ",".join((self.alias, *self.further_names))]
        words += ["--host", self.host, "--port", str(self.port)]
        words += [] if _values_of("--cors-origins", self.extra) else ["--cors-origins", "localhost"]
        words += ["--threads", str(self.threads)]
        if self.ctx_size is not None:
            words += ["--ctx-size", str(self.ctx_size)]
        if self.gpu_layers is not None:
            words += ["--gpu-layers", str(self.gpu_layers)]
        files = (("--api-key-file", self.api_key_file), ("--ssl-cert-file", self.tls_cert))
        for option, file in (*files, ("--ssl-key-file", self.tls_key)):
            words += [] if file is None else [option, str(file)]
        return [*words, *self.extra]

    @property
    def adapter_words(self) -> list[str]:
        """The option for the LoRA adapters: one list, quoted as in CSV; llama.cpp deprecates repeating ``--lora``.

        llama-server divides path and scale at each colon: see ``sets_scales``.
        """
        if not self.adapters:
            return []
        from llama_runner.core.csv_option_values import format_row  # noqa: PLC0415 - not for the usual server

        paths = [str(adapter) for adapter in self.adapters]
        if self.has_usual_scales or self.sets_scales:
            return ["--lora", format_row(paths)]
        scaled = [f"{path}:{scale:.10g}" for path, scale in zip(paths, self.adapter_scales, strict=True)]
        return ["--lora-scaled", format_row(scaled)]

    @property
    def has_usual_scales(self) -> bool:
        """Whether each adapter is applied with the factor 1."""
        return all(scale == 1 for scale in self.adapter_scales)

    @property
    def sets_scales(self) -> bool:
        """Whether the scales are set once the server is ready: a path with a colon is given no scale on its start."""
        return not self.has_usual_scales and any(":" in str(adapter) for adapter in self.adapters)

    @property
    def loaded_adapters(self) -> AdapterScales:
        """The adapters by their ids, as requests choose among them: ours, then those of the extra options."""
        from llama_runner.core.adapter_scales import AdapterScales, adapters_in  # noqa: PLC0415 - as above

        names = self.adapter_names or tuple(path.stem for path in self.adapters)
        ours = AdapterScales(names, self.adapter_scales or (1.0,) * len(names))
        return ours.with_more(adapters_in(self.extra))

    @property
    def has_adapters(self) -> bool:
        """Whether any LoRA adapter is loaded."""
        return bool(self.adapters) or any(_canonical(word).startswith("--lora") for word in self.extra)

    def entry(self) -> dict[str, Any]:
        """Return what the registry says of it. No secret is in it."""
        files = {"api_key_file": self.api_key_file, "tls_cert": self.tls_cert, "model": self.model}
        files["binary"] = self.binary
        found: dict[str, Any] = {"alias": self.alias}
        if self.has_adapters:
            adapters = self.loaded_adapters
            found["adapters"] = [list(each) for each in zip(adapters.names, adapters.scales, strict=True)]
        return found | {name: str(file) for name, file in files.items() if file is not None}

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """Return the server's environment: what it needs of ours, without what would silently configure it."""
        found = program_environment(ours, inherit=self.inherit_environment)
        if not self.inherit_environment:
            return found
        return {name: value for name, value in found.items() if name not in MODEL_SOURCES}


def spec_of(
    options: ServerOptions,
    *,
    binary: Path,
    model: Path,
    alias: str,
    trained_context: int | None,
    cores: int,
    projector: Path | None = None,
    adapters: tuple[Path, ...] = (),
    adapter_names: tuple[str, ...] = (),
    adapter_scales: tuple[float, ...] = (),
) -> ServerSpec:
    """Return the spec for a model on this machine; ``UsageError`` for extra options that are ours to know.

    Relative paths, in the options too, are taken from the working directory: the server starts in another one.
    """
    check_own_options(options.extra)
    extra = options.extra
    if extra:
        from llama_runner.serving.llama_server.absolute_option_paths import absolute_options  # noqa: PLC0415 - not for the usual server

        extra = absolute_options(extra)
    if adapters or any(_canonical(word).startswith("--lora") for word in extra):
        extra = without_host_cache(extra, replace=bool(adapters))
    context = options.ctx_size
    if context is None:
        context = min(DEFAULT_CONTEXT, trained_context or DEFAULT_CONTEXT)
    return ServerSpec(
        binary=binary.absolute(),
        model=model.absolute(),
        projector=projector and projector.absolute(),
        alias=options.names[0] if options.names else alias,
        further_names=options.names[1:],
        host=os.path.abspath(options.host) if is_socket(options.host) else options.host,  # noqa: PTH100
        port=options.port,
        ctx_size=None if context == "auto" else context,
        threads=options.threads or cores,
        gpu_layers=options.gpu_layers,
        extra=extra,
        inherit_environment=options.inherit_environment,
        load_timeout=options.load_timeout,
        canary=options.canary,
        api_key=options.api_key,
        api_key_file=options.api_key_file and options.api_key_file.absolute(),
        insecure=options.insecure,
        force_memory=options.force_memory,
        tls_cert=options.tls_cert and options.tls_cert.absolute(),
        tls_key=options.tls_key and options.tls_key.absolute(),
        adapters=tuple(path.absolute() for path in adapters),
        adapter_names=adapter_names,
        adapter_scales=adapter_scales,
    )


def without_host_cache(words: tuple[str, ...], *, replace: bool) -> tuple[str, ...]:
    """Return options with ``--cache-ram 0``: that cache returns what another adapter computed.

    A size that is given is left as it is unless ``replace``.
    """
    given = [index for index, word in enumerate(words) if _canonical(word) in _HOST_CACHE]
    if given and not replace:
        return words
    left_out = {at for index in given for at in (index, index + 1)}
    return (*(word for index, word in enumerate(words) if index not in left_out), "--cache-ram", "0")


def check_own_options(words: Iterable[str]) -> None:
    """Raise ``UsageError`` for options of llama-server that only we may give it."""
    for word in words:
        option = _canonical(word).partition("=")[0]
        if instead := instead_of(option):
            from llama_runner.serving.errors import own_option_error  # noqa: PLC0415 - not on the warm path

            raise own_option_error(option if option in _SECRET else word, instead)


def instead_of(option: str) -> str | None:
    """Return what to use instead of an option of llama-server that is not passed on; None for all others."""
    option = _canonical(option)
    return MODEL if re.fullmatch(_PRESET, option) else _OURS.get(option)


def is_socket(host: str) -> bool:
    """Return whether llama-server takes a host for a UNIX socket."""
    return host.endswith(".sock")


def needs_care(wanted: ServerOptions | ServerSpec, environment: Mapping[str, str]) -> bool:
    """Return whether ``check_access`` has to look: other machines might reach it, or it has keys or certificates."""
    files = (wanted.api_key_file, wanted.tls_cert, wanted.tls_key)
    return (
        wanted.api_key is not None
        or any(file is not None for file in files)
        or bool(environment.get("LLAMA_API_KEY"))
        or (wanted.inherit_environment and "LLAMA_ARG_API_KEY_FILE" in environment)
        or not is_loopback_or_socket(wanted.host)
    )


def first_key_in(environment: Mapping[str, str]) -> str | None:
    """Return the first key of ``LLAMA_API_KEY`` as llama-server reads it: fields of a CSV row, empty ones left out."""
    text = environment.get("LLAMA_API_KEY")
    if not text:
        return None
    from llama_runner.core.csv_option_values import parse_row  # noqa: PLC0415 - not for the usual server

    return next(filter(None, parse_row(text)), None)


def is_loopback_or_socket(host: str) -> bool:
    """Return whether a host, or the path of a socket, is certainly one that only this machine reaches."""
    return is_loopback(host) or is_socket(host)


def _value_of(option: str, words: tuple[str, ...]) -> str | None:
    """Return the value that an option is given last, which is the one that counts."""
    after = _values_of(option, words)
    return after[-1] if after else None


def _values_of(option: str, words: tuple[str, ...]) -> list[str]:
    return [words[index + 1] for index, word in enumerate(words[:-1]) if _canonical(word) == option]


def _canonical(word: str) -> str:
    """Return an option as llama-server reads it: ``--api_key`` is ``--api-key``."""
    return word.replace("_", "-") if word.startswith("--") else word
