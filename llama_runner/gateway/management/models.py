"""Models: list, show, download, start, stop, pin, keep, remove, log."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import LlamaRunnerError, UsageError
from llama_runner.gateway.errors import BadRequest, CallFailed, GatewayError, UnknownModel, error_json, gateway_error
from llama_runner.gateway.jobs import Work
from llama_runner.gateway.management.running_models import states
from llama_runner.gateway.ollama_downloads import check_repository
from llama_runner.gateway.ollama_names import find_name, plain_name
from llama_runner.system.utc_time import utc_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.gateway.management.openapi_operation import Call
    from llama_runner.gateway.management.shared_by_handlers import Manager
    from llama_runner.gateway.served_models import DeclaredModel, ServedModel
    from llama_runner.library.list_models import Model
    from llama_runner.library.model_names import Selection

Json = dict[str, Any]

_NOT_SERVED: Json = {
    "state": "stopped",
    "served": False,
    "origin": "store",
    "names": [],
    "hidden": False,
    "pinned": False,
    "memory": {},
}


async def list_models(manager: Manager, call: Call) -> Json:
    """Return the models that are served, and those of the store that are not."""
    rows = await _rows(manager)
    words = call.values["query"].lower().split()
    found = [row for row in rows if all(word in f"{row['name']} {row['source']}".lower() for word in words)]
    first = call.values["offset"]
    return {"models": found[first : first + call.values["limit"]], "total": len(found)}


async def _rows(manager: Manager) -> list[Json]:
    """Return a row for each served model, then for each model of the store that is not served."""
    catalogue, created, phases = manager.gateway.catalogue, manager.created, states(manager.gateway)

    def look() -> list[Json]:
        from llama_runner.library.model_names import Selection  # noqa: PLC0415 - after the gateway listens

        stored, kept = _stored(manager)
        index: dict[str, list[Model]] = {}
        for model in stored:
            for name in {model.name.lower(), model.source.lower()}:
                index.setdefault(name, []).append(model)
        rows: list[Json] = []
        used: set[str] = set()
        for served in catalogue.served.values():
            if served.name != served.declared and not created.has(served.name):
                continue  # an alias or a variant of the configuration: it stands with its model
            declared = catalogue.declared[served.declared]
            selection = _selection(declared, index)
            used |= set() if selection is None else {model.title for model in selection.models}
            row = _served_row(served, declared, selection, phases.get(served.declared, {}), kept)
            others = [each.name for each in catalogue.served.values() if each.declared == served.declared]
            row["names"] = [name for name in others if name != served.name]
            rows.append(row | {"origin": "client" if created.has(served.name) else "configuration"})
        for model in stored:
            if model.title not in used:
                row = {"name": model.name, "source": model.source, **_NOT_SERVED}
                rows.append(row | _of_store(Selection((model,)), kept))
        return rows

    found: list[Json] = await manager.thread(look)
    return found


def _stored(manager: Manager) -> tuple[list[Model], set[str]]:
    library = manager.runner().models
    return library.list(), set(library.kept())


def _selection(declared: DeclaredModel, index: Mapping[str, list[Model]]) -> Selection | None:
    """Return what a declared model has in the store; None where there is nothing."""
    from llama_runner.library.model_names import Selection, select  # noqa: PLC0415 - after the gateway listens

    name = _store_name(declared)
    untagged = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
    parts = dict.fromkeys((name.lower(), untagged.lower(), untagged.partition("@")[0].lower()))
    with suppress(UsageError):
        found = select([model for part in parts for model in index.get(part, ())], name, beginnings=False)
        return Selection(found.models[:1], found.quantization)
    return None


def _store_name(declared: DeclaredModel) -> str:
    """Return what the store calls a declared model."""
    given = declared.keywords
    if given.get("demo"):
        return "demo"
    local = given.get("gguf_path") or given.get("safetensors_dir")
    source = str(local or given.get("hf_model") or declared.source)
    quantization = given.get("quantization")
    named = ":" in source.rpartition("/")[2]
    return f"{source}:{quantization}" if quantization and local is None and not named else source


def _served_row(
    served: ServedModel, declared: DeclaredModel, selection: Selection | None, running: Json, kept: set[str]
) -> Json:
    own = _of_store(selection, kept) if selection is not None else _of_file(declared)
    there = selection is not None or own["bytes"] > 0
    return {
        "name": served.name,
        "served": True,
        "hidden": served.hidden,
        "source": None if declared.source is None else str(declared.source),
        "state": running.get("state") or ("stopped" if there else "absent"),
        "pinned": declared.pin,
        "memory": running.get("memory", {}),
        **own,
    }


def _of_store(selection: Selection, kept: set[str]) -> Json:
    model = selection.models[0]
    files = [each for each in selection.artifacts if each.bytes is not None]
    names = {each.summary.quantization: None for each in model.files if each in selection.artifacts}
    return {
        "quantizations": list(names),
        "bytes": sum(each.bytes or 0 for each in files),
        "context": model.context,
        "revision": model.revision,
        "stored_as": model.name,
        "kept": model.name in kept,
        "last_used": None if model.last_used is None else utc_text(model.last_used),
    }


def _of_file(declared: DeclaredModel) -> Json:
    """Return the same for a model that is used where it lies, or that is not here yet."""
    size = 0
    with suppress(OSError, ValueError):
        path = Path(_store_name(declared))
        size = path.stat().st_size if path.is_absolute() and path.is_file() else 0
    empty = {"context": None, "revision": None, "stored_as": None, "kept": False, "last_used": None}
    return {"quantizations": [], "bytes": size, **empty}


async def _row_of(manager: Manager, name: str) -> Json:
    """Return the row of one model; ``UnknownModel`` without one."""
    rows = await _rows(manager)
    served = find_name(name, manager.gateway.catalogue.served) or name
    for row in [each for each in rows if each["name"] == served] + [each for each in rows if served in each["names"]]:
        return row
    raise UnknownModel(name, [each["name"] for each in rows])


async def show_model(manager: Manager, call: Call) -> Json:
    """Return everything that is known of one model."""
    row = await _row_of(manager, call.values["name"])
    stored = None
    if row["stored_as"] is not None:
        stored = await manager.ask("show", name=_whole_name(manager, row), check=call.values["check"])
    running = next((each for each in states(manager.gateway).values() if each["name"] == row["name"]), None)
    return {"model": row, "stored": stored, "running": running}


def _whole_name(manager: Manager, row: Json) -> str:
    """Return what the library calls a model, with its quantization."""
    served = manager.gateway.catalogue.served.get(row["name"])
    return row["name"] if served is None else _store_name(manager.gateway.catalogue.declared[served.declared])


async def add_model(manager: Manager, call: Call) -> Json:
    """Fetch or make a model and serve it: a job."""
    name = call.body["name"]
    stored, _ = await manager.thread(lambda: _stored(manager))
    is_stored = any(plain_name(name) in (model.name, model.title) for model in stored)
    work = manager.downloads.work(name, update=call.body.get("update", not is_stored), is_stored=is_stored)
    return (await manager.jobs.start(work)).to_json()


async def prepare_model(manager: Manager, call: Call) -> Json:
    """Make everything that serving a model needs, the programs too: a job."""
    name = manager.served_name(call.values["name"])
    source, keywords = _request_of(manager, name, with_adapters=True)
    question = manager.question("prepare", name=source, keywords=keywords)

    async def finish(_: Any) -> None:  # noqa: ANN401 - as of every call
        await manager.gateway.declare(manager.gateway.catalogue)

    return (await manager.jobs.start(Work(kind="prepare", name=name, question=question, finish=finish))).to_json()


async def start_model(manager: Manager, call: Call) -> Json:
    """Load a model; with ``wait`` the answer comes when it is ready, else at once."""
    name = manager.served_name(call.values["name"])
    if call.body.get("wait", False):
        async with manager.gateway.acquire(name) as lease:
            lease.answered = True
            return {"model": name, "state": "ready", "seconds": round(lease.waited, 3)}
    manager.spawn(_load(manager, name))
    declared = manager.gateway.catalogue.served[name].declared
    return {"model": name, "state": states(manager.gateway).get(declared, {}).get("state", "waiting"), "seconds": None}


async def _load(manager: Manager, name: str) -> None:
    try:
        async with manager.gateway.acquire(name) as lease:
            lease.answered = True
    except GatewayError as error:
        manager.events.add("model_failed", {"model": name, "error": error_json(error)})


async def stop_model(manager: Manager, call: Call) -> Json:
    """Stop a model once its requests have ended."""
    name = manager.served_name(call.values["name"])
    return {"model": name, "stopped": await manager.gateway.unload(name)}


async def pin_model(manager: Manager, call: Call) -> Json:
    """Pin a model, or end that, until the gateway ends."""
    name = manager.served_name(call.values["name"])
    await manager.gateway.pin(name, wanted=call.body["pinned"])
    return {"model": name, "pinned": call.body["pinned"]}


async def keep_model(manager: Manager, call: Call) -> Json:
    """Protect the files of a model from gc, or end that."""
    name = await _name_in_store(manager, call.values["name"])
    model = await manager.thread(lambda: manager.runner().models.keep(name, wanted=call.body["kept"]))
    return {"model": model.name, "kept": call.body["kept"]}


async def look_at_removal(manager: Manager, call: Call) -> Json:
    """Return what removing a model deletes and frees, without doing it."""
    name = await _name_in_store(manager, call.values["name"])
    is_pulled = find_name(call.values["name"], manager.created.current.pulled) is not None
    found: Json = await manager.ask("remove", name=name, force=call.values["force"], apply=False, is_pulled=is_pulled)
    return found


async def remove_model(manager: Manager, call: Call) -> Json:
    """Delete the files of a model; one that a client added is not served any more."""
    asked = call.values["name"]
    served = find_name(asked, manager.gateway.catalogue.served)
    created = manager.created
    removal: Json = {"models": [], "removed": True, "bytes": 0, "shared": 0, "artifacts": [], "left": {}}
    if served is None or not created.has_name(served):
        given = {
            "name": await _name_in_store(manager, asked),
            "force": call.values["force"],
            "is_pulled": served in created.current.pulled,
        }
        if served is not None:
            await manager.ask("remove", apply=False, **given)  # one that may not be removed is not stopped
            await manager.gateway.unload(served)
        removal = await manager.ask("remove", apply=True, **given)
    if served is None or not created.current.has(served):
        await manager.gateway.declare(manager.gateway.catalogue)
        return removal
    try:
        await created.forget(served, manager.gateway)
    except LlamaRunnerError as error:
        raise gateway_error(error) from error
    return removal


async def _name_in_store(manager: Manager, name: str) -> str:
    """Return what the library calls a model; ``CallFailed`` where the store has none of it."""
    row = await _row_of(manager, name)
    if row["stored_as"] is None:
        hint = "it is used where it is" if row["bytes"] else "POST /api/v1/models fetches it"
        raise CallFailed(f"the store has no files of {name!r}", kind="no_such_model", hint=hint)
    return _whole_name(manager, row)


async def recommend(manager: Manager, call: Call) -> Json:
    """Return which quantization and context suit this machine."""
    model = call.values["model"]
    if find_name(model, manager.gateway.catalogue.served) is not None:
        source, keywords = _request_of(manager, manager.served_name(model))
    else:
        check_repository(plain_name(model))
        source, keywords = plain_name(model), {}
    found: Json = await manager.ask(
        "recommend", model=source, context=call.values["context"], memory=call.values["memory"], **keywords
    )
    return found


async def plan_model(manager: Manager, call: Call) -> Json:
    """Return which steps a start would run, and why, as a graph."""
    name = manager.served_name(call.values["name"])
    source, keywords = _request_of(manager, name, with_adapters=True)
    keywords |= {"offline": not call.values["online"]}
    found: Json = await manager.ask("plan", name=source, keywords=keywords)
    return found


def _request_of(manager: Manager, name: str, *, with_adapters: bool = False) -> tuple[str | None, Json]:
    """Return what ``Runner.prepare`` takes for a served model; for BASE:ADAPTER with that adapter, if it is wanted."""
    served = manager.gateway.catalogue.served[name]
    declared = manager.gateway.catalogue.declared[served.declared]
    keywords = dict(declared.keywords)
    if with_adapters and served.adapters:
        keywords["lora"] = (*keywords.get("lora", ()), *(declared.lora[each] for each in served.adapters))
    return None if declared.source is None else str(declared.source), keywords


async def why_model(manager: Manager, call: Call) -> Json:
    """Return the history of a model file as events, sentences and a graph."""
    asked = call.values["name"]
    name = await _name_in_store(manager, asked)
    file = call.values["file"]
    if file is None and find_name(asked, manager.gateway.catalogue.served) is not None:
        facts = await manager.gateway.facts(manager.served_name(asked))
        file = None if facts is None else facts.file.name
    source = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
    found: Json = await manager.ask("why", name=name if file is None else f"{source}:{file}")
    return found


async def search(manager: Manager, call: Call) -> Json:
    """Search the Hub."""
    if not call.values["query"].strip():
        raise BadRequest("query is empty", field="query")
    found = await manager.ask("search", words=call.values["query"], limit=call.values["limit"])
    return {"results": found}
