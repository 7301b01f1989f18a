"""Which session a file belongs to. Pure."""

from __future__ import annotations

import hashlib

from llama_runner.core.immutable_values import Value

LONGEST_ID = 512
"""Characters of an id."""


class SessionName(Value):
    """A session: the id that a client gave, inside the namespace of its API key."""

    namespace: str
    """What no other key can give: the digest of the key, or ``core.loopback.WITHOUT_KEY``."""
    id: str
    client: str = ""
    """The name of the key, for lists."""
    found: str = ""
    """The digest, where a client named the session by it."""

    @property
    def digest(self) -> str:
        """Names its files: 16 hex digits of the namespace and 32 of namespace and id."""
        if self.found:
            return self.found
        whole = f"{len(self.namespace)}:{self.namespace}{self.id}"
        return namespace_digest(self.namespace) + _hash(whole)[:32]


def namespace_digest(namespace: str) -> str:
    """Return what the digests of all sessions of a namespace begin with."""
    return _hash(namespace)[:16]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
