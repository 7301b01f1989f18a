"""An ML-BOM of a model: a CycloneDX 1.6 document with what the records and the header of the file tell.

``cyclonedx-python-lib`` makes the document. It has no model cards yet (11.12): that object is put in afterwards.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from llama_runner.core.errors import ToolError
from llama_runner.library.inputs_of_artifact import file_name
from llama_runner.library.list_models import quantization_of, role_of
from llama_runner.library.provenance import (
    builder_uri,
    digest_set,
    digests_of,
    files_of_download,
    finish_time,
    revision_of,
    source_uri,
    statement_of,
    tool_texts,
)
from llama_runner.serving.llama_server.served_task import is_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cyclonedx.model import HashType, Property
    from cyclonedx.model.bom import BomMetaData
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import DisjunctiveLicense

    from llama_runner.library.inputs_of_artifact import Lineage
    from llama_runner.store.contents_of_root import Artifact

_ALGORITHMS = {"sha256": "SHA-256", "blake3": "BLAKE3"}
"""Names of hash algorithms in CycloneDX, by those of in-toto."""
_VALUES = ("perplexity", "base_perplexity", "kld_mean", "kld_median", "kld_p99", "kld_max", "same_top_percent")


def no_library_error() -> ToolError:
    """Return the error for the library that is not installed."""
    return ToolError(
        "a CycloneDX document needs cyclonedx-python-lib, which is not installed",
        hint="pip install 'llama-runner[sbom]'",
    )


def ml_bom(lineage: Lineage, header: dict[str, Any], quality: dict[str, Any] | None) -> dict[str, Any]:
    """Return the document of an artifact. ``header`` is that of ``Details``, ``quality`` has the figures if any."""
    try:
        from cyclonedx.model.bom import Bom  # noqa: PLC0415 - an extra of the package
        from cyclonedx.model.dependency import Dependency  # noqa: PLC0415
        from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415
    except ImportError:
        raise no_library_error() from None
    record = lineage.artifact.record
    metadata = _metadata(lineage, header)
    component = metadata.component
    assert component is not None, "made above"
    materials = [*_materials(lineage)]
    bom = Bom(
        components=materials,
        serial_number=uuid5(NAMESPACE_URL, f"{record.key} {record.digest}"),
        metadata=metadata,
        dependencies=[Dependency(component.bom_ref, [Dependency(each.bom_ref) for each in materials])],
    )
    found: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    found["metadata"]["component"]["modelCard"] = _model_card(lineage, header, quality)
    return found


def _metadata(lineage: Lineage, header: dict[str, Any]) -> BomMetaData:
    from cyclonedx.model.bom import BomMetaData  # noqa: PLC0415 - as above
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from cyclonedx.model.tool import ToolRepository  # noqa: PLC0415

    record = lineage.artifact.record
    version = builder_uri(record).partition("@")[2] or None
    tools = [Component(name="llama-runner", version=version, type=ComponentType.APPLICATION, bom_ref="llama-runner")]
    tools += [
        Component(
            name=f"llama.cpp {file_name(each)}",
            version=str(each.record.facts.get("build") or "") or None,
            type=ComponentType.APPLICATION,
            bom_ref=str(each.record.digest),
            hashes=_hashes(each),
            properties=_properties({"digest": each.record.digest}),
        )
        for each in lineage.tools
    ]
    return BomMetaData(
        component=_model(lineage, header),
        tools=ToolRepository(components=tools),
        timestamp=finish_time(record),
    )


def _model(lineage: Lineage, header: dict[str, Any]) -> Component:
    """Return the component that the document is about."""
    from cyclonedx.model.component import Component, ComponentType, Pedigree  # noqa: PLC0415 - as above

    artifact, source = lineage.artifact, lineage.source
    record, revision = artifact.record, revision_of(source)
    group, _, name = lineage.name.rpartition("/")
    is_original = source_uri(source) is not None and record.recipe.get("step") == "download"
    return Component(
        name=name,
        group=group or None,
        version=None if revision is None else revision[:12],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=str(record.digest),
        description=f"{file_name(artifact)}, {quantization_of(artifact)}",
        hashes=_hashes(artifact),
        licenses=_licenses(header),
        purl=None if not is_original else _purl(lineage, file_name(artifact)),
        pedigree=Pedigree(ancestors=[*_ancestors(lineage)], notes=_notes(lineage)),
        properties=_properties(
            {
                "digest": record.digest,
                "bytes": record.bytes,
                "quantization": quantization_of(artifact),
                "context_length": record.facts.get("context_length"),
                "parameters": header.get("parameters"),
            }
        ),
    )


def _notes(lineage: Lineage) -> str:
    """Return each step with its parameters and tools, as text."""
    known = {str(each.record.digest): f"llama.cpp {file_name(each)}" for each in lineage.tools}
    found = []
    for each in statement_of(lineage)["predicate"]["buildDefinition"]["internalParameters"]["steps"]:
        tools = ", ".join(known.get(tool, tool) for tool in each["tools"].values()) or each["by"]
        params = {name: value for name, value in each["params"].items() if name != "files"}
        found.append(f"{each['step']} {json.dumps(params, sort_keys=True)} by {tools}")
    return "; ".join(found)


def _ancestors(lineage: Lineage) -> Iterator[Component]:
    """Yield the repository, and what was made of it on the way."""
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415 - as above

    if source_uri(lineage.source) is not None:
        group, _, name = str(lineage.source["ref"]).rpartition("/")
        yield Component(
            name=name,
            group=group or None,
            version=str(lineage.source["revision"]),
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref="source",
            purl=_purl(lineage),
        )
    for each in lineage.ancestors:
        yield Component(
            name=file_name(each),
            type=ComponentType.MACHINE_LEARNING_MODEL if role_of(each) == "intermediate" else ComponentType.FILE,
            bom_ref=f"ancestor {each.record.digest}",
            hashes=_hashes(each),
            properties=_properties({"digest": each.record.digest, "role": role_of(each)}),
        )


def _materials(lineage: Lineage) -> Iterator[Component]:
    """Yield the files of the source."""
    from cyclonedx.model import HashAlgorithm, HashType  # noqa: PLC0415 - as above
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415

    definition = statement_of(lineage)["predicate"]["buildDefinition"]
    for number, each in enumerate(definition["resolvedDependencies"]):
        if each.get("annotations", {}).get("role") in ("source", "input") and _ALGORITHMS.keys() & each["digest"]:
            [(name, digits)] = each["digest"].items()
            yield Component(
                name=each["name"],
                type=ComponentType.FILE,
                bom_ref=f"file {number} {digits}",
                hashes=[HashType(alg=HashAlgorithm(_ALGORITHMS[name]), content=digits)],
            )


def _purl(lineage: Lineage, file: str | None = None) -> Any:  # noqa: ANN401 - a type of the library's library
    from packageurl import PackageURL  # noqa: PLC0415 - as above

    group, _, name = str(lineage.source["ref"]).rpartition("/")
    return PackageURL("huggingface", group or None, name, str(lineage.source["revision"]), None, file)


def _hashes(artifact: Artifact) -> list[HashType]:
    """Return the hashes of an artifact in one file; a directory has a digest of our own, which is a property."""
    from cyclonedx.model import HashAlgorithm, HashType  # noqa: PLC0415 - as above

    files = files_of_download(artifact.record) if artifact.is_tree else {}
    digests = digest_set(next(iter(files.values()))) if len(files) == 1 else digests_of(artifact)
    return [
        HashType(alg=HashAlgorithm(_ALGORITHMS[name]), content=digits)
        for name, digits in digests.items()
        if name in _ALGORITHMS
    ]


def _licenses(header: dict[str, Any]) -> list[DisjunctiveLicense]:
    """Return the licence that the file's header names; with its SPDX identifier if it has one."""
    from cyclonedx.model.license import DisjunctiveLicense  # noqa: PLC0415 - as above
    from cyclonedx.spdx import fixup_id  # noqa: PLC0415

    text = header.get("license")
    if not isinstance(text, str) or not text.strip():
        return []
    known = fixup_id(text)
    return [DisjunctiveLicense(id=known) if known else DisjunctiveLicense(name=text)]


def _properties(values: dict[str, Any]) -> list[Property]:
    from cyclonedx.model import Property  # noqa: PLC0415 - as above

    return [
        Property(name=f"llama_runner:{name}", value=str(value)) for name, value in values.items() if value is not None
    ]


def _model_card(lineage: Lineage, header: dict[str, Any], quality: dict[str, Any] | None) -> dict[str, Any]:
    """Return the member ``modelCard``: architecture, task, inputs and outputs, figures of quality."""
    architecture = header.get("architecture") or "unknown"
    encodes = is_encoder(architecture)
    task, output = ("feature-extraction", "embedding") if encodes else ("text-generation", "text")
    inputs = ["text", *(["image"] if "vision" in header.get("capabilities", ()) else [])]
    card: dict[str, Any] = {
        "modelParameters": {
            "task": task,
            "architectureFamily": str(architecture),
            "modelArchitecture": str(architecture),
            "inputs": [{"format": each} for each in inputs],
            "outputs": [{"format": output}],
        }
    }
    metrics = [{"type": name, "value": str(quality[name])} for name in _VALUES if quality and name in quality]
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    told = {f"llama_runner:{name}": text for name, text in tool_texts(lineage.artifact.record).items()}
    can = header.get("capabilities") or ()
    told |= {"llama_runner:capabilities": ", ".join(can)} if can else {}
    if told:
        card["properties"] = [{"name": name, "value": value} for name, value in sorted(told.items())]
    return card
