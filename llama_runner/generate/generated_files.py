"""Makes the files of a target from declared models. Pure: the caller passes a function for the memory of models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from llama_runner.config.errors import no_models_error
from llama_runner.core.immutable_values import Value
from llama_runner.core.option_values import wrong_value_error
from llama_runner.generate.container import OF_IMAGE, MemoryNeed, RunCall, Workload, workloads
from llama_runner.generate.dockerfile import VARIANTS, Variant
from llama_runner.generate.errors import CannotGenerate
from llama_runner.version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from llama_runner.config.config import Config
    from llama_runner.config.layers import Resolved

Target = Literal["compose", "quadlet", "kubernetes", "systemd", "dockerfile"]
TARGETS: tuple[Target, ...] = get_args(Target)

_OF_GATEWAY = ("system", "sessions", "max_ctx_size", "fallback", "ttl", "preload", "pin", "hidden")
"""Keys of a model that only the gateway knows."""
_OF_ADDRESS = ("host", "port", "api_key", "api_key_file", "insecure", "tls_cert", "tls_key")
"""Options of a model's own server that the gateway does not use."""
_OVERHEAD = 256 << 20
"""Bytes of llama-runner itself, with some for its checks."""
_LEAST = 64 << 20
_PROMPTS = 4 << 30
"""The most that the gateway gives to the prompts of all models, unless the file says another size."""


class GenerateOptions(Value):
    """Options of ``generate``."""

    variant: Variant = "cpu"
    image: str | None = None
    """None: ``llama-runner:VERSION-VARIANT``."""
    gpus: int = 1
    """GPUs of each model, where the variant uses any."""
    gpu_resource: str | None = None
    """The resource of Kubernetes that a GPU is; None: ``nvidia.com/gpu`` for cuda."""
    memory: Mapping[str, int] | int | None = None
    """Bytes that models may take, for all or by name; None: what they are known to take."""
    storage: int = 50 << 30
    """Bytes of the volume of each model in Kubernetes."""
    remote_store: str | None = None
    """The remote store that containers fetch from, instead of the one that is declared."""
    max_replicas: int = 1
    """Pods of each model in Kubernetes at most."""
    per_model: bool = False
    """Whether each of several models has a container of its own; else one has all, behind the gateway."""
    user: str | None = None
    """The user of units of the system; None: units of the user who starts them."""
    program: str = "llama-runner"
    """What units of systemd start."""

    def __post_init__(self) -> None:
        """Check the values that types do not constrain."""
        if self.variant not in VARIANTS:
            raise wrong_value_error("variant", f"one of {', '.join(VARIANTS)}", self.variant)
        for name in ("image", "gpu_resource", "user"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and re.fullmatch(r"\w[\w./:@-]*", value, re.ASCII)):
                raise wrong_value_error(name, "a name", value)
        sizes = self.memory.values() if isinstance(self.memory, Mapping) else [self.memory]
        if any(isinstance(each, bool) or not isinstance(each, int) for each in sizes if each is not None):
            raise wrong_value_error("memory", "a number of bytes, or one for each name", self.memory)
        for name in ("program", "remote_store"):
            if (value := getattr(self, name)) is not None and not (isinstance(value, str) and value):
                raise wrong_value_error(name, "text", value)
        for name, least in (("gpus", 1), ("max_replicas", 1), ("storage", 1)):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int) or value < least:
                raise wrong_value_error(name, f"a number from {least} up", value)

    @property
    def image_name(self) -> str:
        """The image of the containers."""
        return self.image or f"llama-runner:{__version__}-{self.variant}"


class Generated(Value, eq=False):
    """Files for a target."""

    target: str
    files: Mapping[str, str]
    """Texts by the names of files."""
    notes: tuple[str, ...] = ()
    """What is declared and not in them."""

    def write(self, output: str | os.PathLike[str], *, force: bool = False) -> list[Path]:
        """Write the files to a file or directory and return their paths.

        A file with another content is a ``CannotGenerate`` before anything is written, unless ``force``.
        """
        from llama_runner.generate.write_files import write  # noqa: PLC0415 - only then

        return write(self.files, output, force=force)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``generate --json``."""
        return {"target": self.target, "files": dict(self.files), "notes": list(self.notes)}


def generate(
    target: Target,
    config: Config | None,
    names: Iterable[str],
    options: GenerateOptions,
    memory: Callable[[Resolved], tuple[int, int] | None],
) -> Generated:
    """Return the files of a target for declared models, all if none is named. Raises ``CannotGenerate``.

    ``memory`` returns the bytes that a model takes and those that its cache of prompts may take; None if not known.
    """
    if target not in TARGETS:
        raise wrong_value_error("target", f"one of {', '.join(TARGETS)}", target)
    if target == "dockerfile":
        from llama_runner.generate import dockerfile  # noqa: PLC0415 - one of five

        text = dockerfile.dockerfile(options.variant, package=f"llama-runner[gateway]=={__version__}")
        return Generated(target, {dockerfile.FILE_NAME: text})
    if config is None:
        raise CannotGenerate(
            "there is no configuration file", hint="llama-runner config init writes one, or pass --config FILE"
        )
    found = [config.resolved(name) for name in names or config.models]
    resolved = list({each.names[0]: each for each in found}.values())
    if not resolved:
        raise no_models_error(config.path)
    given, declared = _address(options.remote_store), _address(config.store.remote_store)
    remote = given or declared
    _check_memory_names(options, [each.names[0] for each in resolved])
    if target == "systemd":
        from llama_runner.generate.units_for_models import systemd  # noqa: PLC0415 - one of five

        files = systemd(
            [run_call(each, given, declared) for each in resolved], program=options.program, user=options.user
        )
        return Generated(target, files, tuple(note for each in resolved for note in _notes(each, in_image=False)))
    needs = {each.names[0]: _need(each, options, memory) for each in resolved}
    cluster = target == "kubernetes"
    if len(resolved) > 1 and not options.per_model:
        from llama_runner.generate.gateway_container import gateway  # noqa: PLC0415 - as above

        need = _need_together(list(needs.values()), options, config.gateway.memory.prompt_cache)
        containers = [gateway(config, resolved, cluster=cluster, remote_store=remote, memory=need)]
        notes = tuple(note for each in resolved for note in _notes_of_gateway(each))
        return Generated(target, _files(target, containers, options, remote, config.path.parent), notes)
    models = [run_call(each, given, declared, needs[each.names[0]]) for each in resolved]
    containers = workloads(models, cluster=cluster, metrics=options.max_replicas > 1)
    notes = tuple(note for each in resolved for note in _notes(each, in_image=True))
    return Generated(target, _files(target, containers, options, remote, config.path.parent), notes)


def _files(
    target: Target, containers: Sequence[Workload], options: GenerateOptions, remote: str | None, base: Path
) -> dict[str, str]:
    image, variant = options.image_name, options.variant
    if target == "kubernetes":
        from llama_runner.generate import kubernetes  # noqa: PLC0415 - as above

        is_remote = remote is not None
        cluster = kubernetes.Cluster(
            image=image,
            gpus=0 if variant == "cpu" else options.gpus,
            gpu_resource=_gpu_resource(options),
            storage=options.storage,
            keeps_store=not is_remote,
            max_replicas=options.max_replicas,
        )
        return {kubernetes.FILE_NAME: kubernetes.kubernetes(containers, cluster)}
    if target == "compose":
        from llama_runner.generate import compose  # noqa: PLC0415 - as above

        text = compose.compose(containers, image=image, variant=variant, gpus=options.gpus, base=base)
        return {compose.FILE_NAME: text}
    from llama_runner.generate.quadlet import quadlet  # noqa: PLC0415 - as above

    return quadlet(containers, image=image, variant=variant)


def _gpu_resource(options: GenerateOptions) -> str:
    if options.gpu_resource is None and options.variant == "vulkan":
        raise CannotGenerate(
            "Kubernetes has no resource for every GPU with Vulkan",
            hint="pass the one of your device plugin: --gpu-resource amd.com/gpu, --gpu-resource gpu.intel.com/i915",
        )
    return options.gpu_resource or "nvidia.com/gpu"


def _address(remote_store: str | None) -> str | None:
    """Return the address of a remote store; ``UsageError`` for one that has a password, or is none."""
    if not remote_store:
        return None
    from llama_runner.remote.parse_store_address import parse_address  # noqa: PLC0415 - only with one

    return parse_address(remote_store).text


def run_call(
    resolved: Resolved,
    remote_store: str | None = None,
    declared_store: str | None = None,
    memory: MemoryNeed | None = None,
) -> RunCall:
    """Return what ``run`` is called with for a declared model.

    ``remote_store`` counts more than that of the model, ``declared_store`` less.
    """
    server, keywords = resolved.server, dict(resolved.keywords)
    own = keywords.get("remote_store")
    if store := remote_store or _address(str(own or "")) or declared_store:
        keywords["remote_store"] = store
    names = () if "--alias" in server.extra else ("--alias", ",".join(server.names))
    return RunCall(
        name=resolved.names[0],
        source=resolved.source,
        keywords=keywords,
        server=server.replace(extra=(*server.extra, *names)),
        port=server.port or None if "port" in resolved.values else None,
        life_cycle=resolved.life_cycle,
        memory=memory,
    )


def _need(
    resolved: Resolved, options: GenerateOptions, memory: Callable[[Resolved], tuple[int, int] | None]
) -> MemoryNeed | None:
    """Return the memory of a model: as the user says, or the estimate if the model is prepared here."""
    given = options.memory
    size = given if given is None or isinstance(given, int) else given.get(resolved.names[0])
    if size is not None:
        if size < _LEAST:
            raise wrong_value_error("memory", "at least 64 MiB", size)
        return MemoryNeed(size, size)
    if (known := memory(resolved)) is None:
        return None
    taken, prompts = known
    return None if prompts < 0 else MemoryNeed(taken + _OVERHEAD, taken + _OVERHEAD + prompts)


def _need_together(
    needs: Sequence[MemoryNeed | None], options: GenerateOptions, prompts: int | None
) -> MemoryNeed | None:
    """Return the memory of the gateway: requested is the largest model, the limit is all models and their prompts."""
    if isinstance(options.memory, int):
        return next(iter(needs))
    known = [each.request for each in needs if each is not None]
    if len(known) < len(needs):
        return None
    return MemoryNeed(max(known), sum(known) + (_PROMPTS if prompts is None else prompts))


def _check_memory_names(options: GenerateOptions, names: Sequence[str]) -> None:
    if options.memory is None or isinstance(options.memory, int):
        return
    for name in options.memory:
        if name not in names:
            raise CannotGenerate(f"--memory names {name!r}, which is not among {', '.join(names)}", model=name)


def _notes_of_gateway(resolved: Resolved) -> Iterable[str]:
    """Yield notes about options of a model that the gateway does not use, as it has one value for all models."""
    if left := [name for name in _OF_ADDRESS if resolved.values.get(name)]:
        yield f"{resolved.names[0]}: {', '.join(left)} of the model are not used: [gateway] has one for all"


def _notes(resolved: Resolved, *, in_image: bool) -> Iterable[str]:
    """Yield notes about declared options that are left out of the files."""
    model, name = resolved.model, resolved.names[0]
    left = [key for key in _OF_GATEWAY if resolved.get(key) is not None]
    left += [key for key in ("variants", "adapters") if getattr(model, key)]
    if left:
        yield f"{name}: {', '.join(left)} are left out: only `llama-runner up` knows them"
    if in_image and (programs := sorted(OF_IMAGE & set(resolved.values))):
        yield f"{name}: {', '.join(programs)} are left out: the image has the programs"
    if "profile" in resolved.settings:
        yield f"{name}: its profile is left out: it was measured on this machine"
