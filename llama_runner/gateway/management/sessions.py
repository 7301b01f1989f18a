"""Handlers of the management API about sessions on disk. Histories that are encrypted are not read here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_runner.gateway.management.openapi_operation import Call
    from llama_runner.gateway.management.shared_by_handlers import Manager
    from llama_runner.sessions.session_library import SessionLibrary

Json = dict[str, Any]


def _library(manager: Manager) -> SessionLibrary:
    return manager.runner().sessions


async def list_sessions(manager: Manager, _: Call) -> Json:
    """Return the sessions, the last used first."""
    found = await manager.thread(lambda: [each.to_json() for each in _library(manager).list()])
    return {"sessions": found, "bytes": sum(each["bytes"] for each in found)}


async def show_session(manager: Manager, call: Call) -> Json:
    """Return a session with its turns."""
    found: Json = await manager.thread(lambda: _library(manager).show(call.values["session"]))
    return found


async def remove_session(manager: Manager, call: Call) -> Json:
    """Delete a session."""
    found: Json = await manager.thread(lambda: _library(manager).remove(call.values["session"]).to_json())
    for child in manager.gateway.children.ready.values():
        if child.sessions is not None:
            child.sessions.forget(found["session"])
    manager.events.add("sessions_changed", {})
    return found


async def prune_sessions(manager: Manager, call: Call) -> Json:
    """Delete old states."""
    body = call.body
    found = await manager.thread(
        lambda: _library(manager).prune(
            max_size=body.get("max_size"), unused=body.get("unused"), histories=body.get("histories", False)
        )
    )
    manager.events.add("sessions_changed", {})
    return {"removed": found.removed, "bytes": found.bytes}


async def export_session(manager: Manager, call: Call) -> Json:
    """Return the history of a session."""
    found: Json = await manager.thread(lambda: _library(manager).export(call.values["session"]))
    return found


async def import_session(manager: Manager, call: Call) -> Json:
    """Add a session that was exported."""
    given, as_id = call.body["exported"], call.body.get("as")
    found: Json = await manager.thread(lambda: _library(manager).add(given, as_id=as_id).to_json())
    manager.events.add("sessions_changed", {})
    return found
