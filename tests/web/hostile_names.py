"""Names of models that a page must show as text."""

from __future__ import annotations

import json
from typing import Any

IMAGE = "<img src=x onerror=document.title='taken'>"
REVERSED = "safe\u202egnp.exe"
LONG = "x" * 200
HOSTILE = (IMAGE, LONG, "<script>document.title='taken'</script>", "a&amp;b", "'\"--><svg onload=alert(1)>")


def declared(names: Any) -> str:
    return "".join(f"[models.{json.dumps(name)}]\ndemo = true\n" for name in names)
