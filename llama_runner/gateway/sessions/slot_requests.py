"""Requests to a llama-server about its slots: which are empty, save, restore, and what a saved prefix is made of."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeVar

from llama_runner.core.immutable_values import Value
from llama_runner.gateway.sessions.chat_messages import follow_ups, media_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from llama_runner.gateway.upstream_client import UpstreamClient

Json = dict[str, Any]
Prompt = list[int] | Json
"""Tokens; with images a text and their bytes."""

_TIMEOUT_S = 120.0
_T = TypeVar("_T")


class SlotError(Exception):
    """The process did not do what was asked: it ended, or refused."""


class SlotSaved(Value):
    """What llama-server saved."""

    tokens: int
    bytes: int


async def within(seconds: float, work: Awaitable[_T]) -> _T:
    """Return what ``work`` returns; ``asyncio.TimeoutError`` after so many seconds.

    ``asyncio.wait_for`` of Python before 3.12 loses a cancellation that comes together with the result.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()


class SlotRequests:
    """The requests to one process."""

    def __init__(self, upstream: UpstreamClient, url: str, key: str) -> None:
        self._upstream, self._url, self._key = upstream, url, key

    async def _json(self, method: str, path: str, body: Json | None = None) -> Any:  # noqa: ANN401 - JSON is anything
        try:
            status, content = await within(_TIMEOUT_S, self._answer(method, path, body))
            found = json.loads(content)
        except (OSError, ValueError, RecursionError, asyncio.TimeoutError) as error:
            raise SlotError(f"{path}: {type(error).__name__}") from error
        if status != 200:  # noqa: PLR2004 - everything else is an error
            told = found.get("error") if isinstance(found, dict) else None
            raise SlotError(f"{path}: {told.get('message') if isinstance(told, dict) else status}")
        return found

    async def _answer(self, method: str, path: str, body: Json | None) -> tuple[int, bytes]:
        answer = await self._upstream.request(self._url, method, path, key=self._key, json=body)
        try:
            return answer.status, await answer.read()
        finally:
            answer.close()

    async def idle_slots(self) -> dict[int, int | None]:
        """Return the slots that answer nobody, and the number of the last task of each; None for an empty one."""
        found = await self._json("GET", "/slots")
        idle = [each for each in found if not each.get("is_processing")]
        return {each["id"]: each.get("id_task") if each.get("n_prompt_tokens") else None for each in idle}

    async def count(self) -> int:
        """Return how many slots there are."""
        return len(await self._json("GET", "/slots"))

    async def prefix_of_chat(self, body: Json, answer: Json) -> Prompt:
        """Return what every prompt of this conversation begins with after this answer.

        The template says it: what the prompts of two ways to go on have in common. So thinking text is left out where
        the template leaves it out, and the prefix ends behind the beginning of the next message.
        """
        conversation = [*body["messages"], answer]
        given = [{**body, "messages": [*conversation, *after]} for after in follow_ups(answer)]
        texts = [(await self._json("POST", "/apply-template", each))["prompt"] for each in given]
        media = media_in(conversation)
        if media is None:
            raise SlotError("an image is not part of the request")
        if media:
            return {"prompt_string": texts[0][: _common(*texts)], "multimodal_data": media}
        first, second = [await self._tokens(text) for text in texts]
        return first[: _common(first, second)]

    async def prefix_of_text(self, text: str) -> Prompt:
        """Return the tokens of a text that was completed, without the last: the next may join it."""
        return (await self._tokens(text))[:-1]

    async def _tokens(self, text: str) -> list[int]:
        body = {"content": text, "add_special": True, "parse_special": True}
        found: list[int] = (await self._json("POST", "/tokenize", body))["tokens"]
        return found

    async def bring(self, prompt: Prompt, more: Mapping[str, Any]) -> tuple[int, int]:
        """Bring a prompt into a slot; return the slot, and the tokens that were read for it."""
        body = {"prompt": prompt, "n_predict": 0, "cache_prompt": True, **more}
        found = await self._json("POST", "/completion", body)
        return int(found["id_slot"]), int(found.get("timings", {}).get("prompt_n", 0))

    async def save(self, slot: int, file: str) -> SlotSaved:
        """Save a slot. llama-server answers 200 with no tokens where the slot was emptied meanwhile."""
        found = await self._json("POST", f"/slots/{slot}?action=save", {"filename": file})
        return SlotSaved(int(found["n_saved"]), int(found["n_written"]))

    async def restore(self, slot: int, file: str) -> int:
        """Restore a slot; what was in it is gone, also after an error. Return the tokens."""
        found = await self._json("POST", f"/slots/{slot}?action=restore", {"filename": file})
        return int(found["n_restored"])


def _common(first: Sequence[object], second: Sequence[object]) -> int:
    """Return how many elements two sequences have in common at their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))
