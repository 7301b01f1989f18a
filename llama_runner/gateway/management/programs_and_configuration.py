"""Programs, configuration, jobs, logs, status: the handlers that are not about one model's life."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.core.printable_text import printable
from llama_runner.gateway.configuration import process_name
from llama_runner.gateway.errors import BadRequest, CallFailed, GatewayError, error_json
from llama_runner.gateway.jobs import Work
from llama_runner.gateway.management.streams import send_log
from llama_runner.version import __version__

if TYPE_CHECKING:
    from llama_runner.config.runner_configuration import ConfigFile, KeyChange
    from llama_runner.gateway.management.openapi_operation import Call
    from llama_runner.gateway.management.shared_by_handlers import Manager

Json = dict[str, Any]

_AUTO = "auto"
_TAG = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
"""Tags of releases: clients must not name paths and URLs, whose programs would run."""


# --- programs


async def list_programs(manager: Manager, _: Call) -> Json:
    """Return the builds of llama.cpp."""

    def look() -> Json:
        builds = manager.runner().bins
        found = [each.to_json() for each in builds.builds()]
        chosen = next((each["name"] for each in found if each["in_use"]), _AUTO)
        taken = None
        with suppress(LlamaRunnerError):  # a start says what is wrong
            taken = builds.path().name
        unused = [each.name for each in builds.unused()]
        return {"programs": found, "in_use": chosen, "next": taken, "unused": unused}

    found: Json = await manager.thread(look)
    return found


async def install_programs(manager: Manager, call: Call) -> Json:
    """Install a release of llama.cpp: a job."""
    release, device = call.body.get("release", "latest"), call.body.get("device")
    if not _TAG.fullmatch(release):
        raise BadRequest(f"{printable(repr(release), limit=80)} is no tag of a release", field="release")
    newest = release == "latest"
    arguments: Json = {"binaries": "prebuilt" if newest else f"prebuilt:{release}", "update": newest}
    if device is not None:
        arguments["device"] = device
    question = manager.question("programs", **arguments)
    name = f"{release} {device or ''}".strip()
    return (await manager.jobs.start(Work(kind="install", name=name, question=question))).to_json()


async def build_programs(manager: Manager, call: Call) -> Json:
    """Compile llama.cpp: a job."""
    device, force = call.body.get("device", _AUTO), call.body.get("force", False)
    arguments: Json = {"binaries": "build", "device": device, "force": ["compile"] if force else []}
    if "jobs" in call.body:
        arguments["jobs"] = call.body["jobs"]
    question = manager.question("programs", **arguments)
    return (await manager.jobs.start(Work(kind="build", name=device, question=question))).to_json()


async def activate_program(manager: Manager, call: Call) -> Json:
    """Choose the build that later starts take."""
    programs = await manager.thread(lambda: manager.runner().bins.use(call.values["name"]))
    manager.events.add("programs_changed", {})
    return {"in_use": _AUTO if programs is None else programs.name}


async def roll_back_programs(manager: Manager, _: Call) -> Json:
    """Choose the build again that was chosen before."""
    name = await manager.thread(lambda: manager.runner().bins.rollback() or _AUTO)
    manager.events.add("programs_changed", {})
    return {"in_use": name}


async def remove_program(manager: Manager, call: Call) -> Json:
    """Remove a build."""
    name, force = call.values["name"], call.values["force"]
    build = await manager.thread(lambda: manager.runner().bins.remove(name, force=force))
    manager.events.add("programs_changed", {})
    return {"removed": build.name}


async def program_updates(manager: Manager, call: Call) -> Json:
    """Compare the pinned llama.cpp with newer ones."""
    found: Json = await manager.ask("updates", offline=call.values["offline"])
    return found


# --- configuration


async def read_configuration(manager: Manager, _: Call) -> Json:
    """Return the text of the configuration file and its mistakes."""
    path = manager.config
    found: Json = await manager.thread(lambda: _file(manager).read().to_json() | {"file": str(path)})
    return found


def _file(manager: Manager) -> ConfigFile:
    return manager.runner().config_file


async def configuration_schema(_manager: Manager, _: Call) -> Json:
    """Return the JSON Schema of the file."""
    from llama_runner.config.schema import schema  # noqa: PLC0415 - only when it is asked for

    return schema()


async def effective_configuration(manager: Manager, call: Call) -> Json:
    """Return what a declared model is run with, and which layer and line says so."""
    name = call.values["name"]
    return {"model": name, "keys": await manager.thread(lambda: _file(manager).effective(name))}


async def configuration_value(manager: Manager, call: Call) -> Json:
    """Return what the file sets a key to."""
    key = call.values["key"]
    return {"key": key, "value": await manager.thread(lambda: _file(manager).get(key))}


async def change_configuration(manager: Manager, call: Call) -> Json:
    """Set and remove keys, or replace the text; without ``apply`` return only what that does."""
    body = call.body
    apply, revision = body.get("apply", False), body.get("revision")
    if ("text" in body) == ("changes" in body):
        raise BadRequest("give changes or text", field="changes")
    if "text" in body:
        made = await manager.thread(lambda: _file(manager).replace(body["text"], apply=apply, revision=revision))
    else:
        changes = [_change(each, f"changes[{number}]") for number, each in enumerate(body["changes"])]
        made = await manager.thread(lambda: _file(manager).change(changes, apply=apply, revision=revision))
    found: Json = {**made.to_json(), "reloaded": False, "reload_error": None}
    if apply:
        manager.events.add("config_changed", {"file": str(manager.config), "revision": made.revision})
        if body.get("reload", True):
            try:
                found["reloaded"] = await manager.reload()
            except GatewayError as error:  # the file is changed all the same
                found["reload_error"] = error_json(error)
    return found


def _change(given: Json, where: str) -> KeyChange:
    from llama_runner.config.runner_configuration import KeyChange  # noqa: PLC0415 - only for changes

    is_unset = given.get("unset", False)
    if is_unset == ("value" in given):
        raise BadRequest(f"{where}: give a value, or unset", field=where)
    if not is_unset and not _is_toml(given["value"]):
        raise BadRequest(f"{where}.value: TOML has no null", field=f"{where}.value", hint="use unset")
    return KeyChange(key=given["key"], value=given.get("value"), is_unset=is_unset)


def _is_toml(value: Any) -> bool:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return all(map(_is_toml, value.values()))
    if isinstance(value, list):
        return all(map(_is_toml, value))
    return value is not None


async def reload_configuration(manager: Manager, _: Call) -> Json:
    """Serve what the configuration says now."""
    await manager.reload()
    return {"models": list(manager.gateway.catalogue.declared)}


# --- jobs and logs


async def list_jobs(manager: Manager, _: Call) -> Json:
    """Return the jobs, the newest first."""
    return {"jobs": [job.to_json() for job in reversed(manager.jobs.list())]}


async def show_job(manager: Manager, call: Call) -> Json:
    """Return one job."""
    return manager.jobs.get(call.values["id"]).to_json()


async def cancel_job(manager: Manager, call: Call) -> Json:
    """End a job; what arrived stays."""
    job = manager.jobs.get(call.values["id"])
    job.stop()
    return job.to_json()


async def remove_job(manager: Manager, call: Call) -> Json:
    """Forget a job that has ended."""
    manager.jobs.remove(call.values["id"])
    return {"removed": call.values["id"]}


async def job_log(manager: Manager, call: Call) -> Any:  # noqa: ANN401 - JSON or a stream
    """Return the last lines of the log of the step that a job runs, or follow it."""
    job = manager.jobs.get(call.values["id"])
    if job.log is None:
        raise CallFailed(f"job {job.id} has no log yet", kind="no_log", code=2)
    return await send_log(manager, call, manager.gateway.root / job.log, lambda: not job.ended.is_set())


async def model_log(manager: Manager, call: Call) -> Any:  # noqa: ANN401 - JSON or a stream
    """Return the last lines of the log of a model's process, also of one that has ended, or follow it."""
    name = manager.gateway.catalogue.served[manager.served_name(call.values["name"])].declared
    children = manager.gateway.children
    child = children.ready.get(name)
    if (path := children.logs.get(name)) is not None:
        return await send_log(manager, call, path, lambda: child is not None and children.ready.get(name) is child)
    found = await manager.thread(lambda: manager.runner().log(process_name(name)))
    return await send_log(manager, call, found.path, found.runs)


# --- the gateway


async def status(manager: Manager, call: Call) -> Json:
    """Return what the gateway and the store are, and who asks."""
    found = await manager.thread(lambda: manager.runner().status().to_json())
    process = manager.process
    return {
        "version": __version__,
        "started_at": manager.gateway.started_at,
        "urls": process.urls(),
        "pid": os.getpid(),
        "closing": manager.gateway.scheduler.is_closing,
        "config": None if process.config is None else str(process.config),
        **found,
        "client": {"name": call.client.name, "manages": call.client.manages},
    }


async def doctor(manager: Manager, _: Call) -> Json:
    """Return what the machine has and lacks."""
    found: Json = await manager.ask("doctor")
    return found
