"""Routes of the page: its files, and signing in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from llama_runner.gateway.errors import BadRequest, Forbidden, RequestTooLarge, Unauthorized
from llama_runner.gateway.page_sign_in import SignIns, cookie_name, id_in, is_of_page
from llama_runner.gateway.read_keys_and_limits import key_digest
from llama_runner.gateway.request_bodies import parsed
from llama_runner.gateway.route_interface import client_of
from llama_runner.web.page_files import PREFIX, Page, PageFile, page

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.gateway.read_keys_and_limits import Keys

_FOR_GOOD = "public, max-age=31536000, immutable"
_SESSION = f"{PREFIX}/session"
_MOST_BODY = 1 << 14


def is_public(request: web.Request) -> bool:
    """Return whether a request needs no key: the files of the page have nothing secret, and signing in has the key."""
    return request.path == PREFIX or request.path.startswith(f"{PREFIX}/")


class PageRoutes:
    """Handlers of the routes of the page."""

    def __init__(self, sign_ins: SignIns, keys: Callable[[], Keys]) -> None:
        self._sign_ins, self._keys = sign_ins, keys

    def add_to(self, application: web.Application) -> None:
        """Add the routes to an application."""
        router = application.router
        router.add_get(PREFIX, self._document)
        router.add_get(f"{PREFIX}/", self._document)
        router.add_get(_SESSION, self._show)
        router.add_post(_SESSION, self._sign_in)
        router.add_delete(_SESSION, self._sign_out)
        router.add_get(f"{PREFIX}/{{version}}/{{path:.+}}", self._file)

    async def _document(self, request: web.Request) -> web.Response:
        found = page()
        etag = f'"{found.version}"'
        headers = {"Cache-Control": "no-cache", "ETag": etag}
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        return _answer(found.document, headers)

    async def _file(self, request: web.Request) -> web.Response:
        found: Page = page()
        file = found.files.get(request.match_info["path"])
        if file is None or request.match_info["version"] != found.version:
            raise web.HTTPNotFound
        return _answer(file, {"Cache-Control": _FOR_GOOD, "ETag": f'"{found.version}"'})

    def _state(self, request: web.Request, *, signed_in: bool) -> dict[str, object]:
        client = client_of(request)
        return {
            "version": page().version,
            "signed_in": signed_in,
            "needed": not (client.manages and "*" in client.models),
            "has_keys": bool(self._keys()),
            "client": client.name,
        }

    async def _show(self, request: web.Request) -> web.Response:
        """Say who the browser is and whether it has to sign in."""
        id_ = id_in(request)
        signed_in = id_ is not None and self._sign_ins.key_digest(id_) in self._keys()
        return web.json_response(self._state(request, signed_in=signed_in), headers={"Cache-Control": "no-store"})

    async def _sign_in(self, request: web.Request) -> web.Response:
        """Take a key and set the cookie that stands for it."""
        self._check_page(request)
        if request.content_type != "application/json":
            raise BadRequest("the content type is not application/json")
        content = b""
        while part := await request.content.read(_MOST_BODY + 1 - len(content)):  # of somebody who has not signed in
            content += part
        if len(content) > _MOST_BODY:
            raise RequestTooLarge(f"the body is larger than {_MOST_BODY} bytes")
        key = parsed(content).get("key")
        if not isinstance(key, str) or not key.isprintable() or not key:
            raise BadRequest("key is required, as one line of text", field="key")
        digest = key_digest(key)
        client = self._keys().get(digest)
        if client is None:
            raise Unauthorized("the key is not known", hint="a key of the file that gateway.api_key_file names")
        if not (client.manages and "*" in client.models):
            raise Forbidden("this key may not manage the gateway", hint="use a key with manage = true and every model")
        if (before := id_in(request)) is not None:
            self._sign_ins.end(before)
        answer = web.json_response({"client": client.name})
        answer.set_cookie(
            cookie_name(request),
            self._sign_ins.begin(digest),
            httponly=True,
            samesite="Strict",
            secure=request.secure,
            path="/",
        )
        return answer

    async def _sign_out(self, request: web.Request) -> web.Response:
        """End the sign-in of the cookie."""
        self._check_page(request)
        if (id_ := id_in(request)) is not None:
            self._sign_ins.end(id_)
        answer = web.json_response({})
        answer.del_cookie(cookie_name(request), path="/", httponly=True, samesite="Strict", secure=request.secure)
        return answer

    @staticmethod
    def _check_page(request: web.Request) -> None:
        if not is_of_page(request):
            raise Forbidden("only the page of the gateway signs in and out", hint="send Authorization: Bearer KEY")


def _answer(file: PageFile, headers: dict[str, str]) -> web.Response:
    return web.Response(body=file.content, headers={"Content-Type": file.type, **headers})
