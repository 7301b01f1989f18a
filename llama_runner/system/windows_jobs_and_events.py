"""Jobs and named events of Windows, for what signals and process groups do elsewhere. Empty on other systems.

A process that takes requests (to end, to hang up) makes an event for each, with its process id in the name. Who sends
one sets that event. The events are of one session of a user; they go with the process.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    import signal
    import threading
    from ctypes import wintypes
    from typing import TYPE_CHECKING

    if TYPE_CHECKING:
        import subprocess
        from collections.abc import Callable

    _END, _HANG_UP = "end", "hang-up"
    _EVENT_MODIFY_STATE, _FOREVER = 0x0002, 0xFFFFFFFF
    _KILL_ON_CLOSE, _EXTENDED_LIMITS, _LIMITS_BYTES, _FLAGS_AT = 0x2000, 9, 144, 16
    """Of JOBOBJECT_EXTENDED_LIMIT_INFORMATION on a 64-bit system."""

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    for _name, _result, _arguments in (
        ("CreateJobObjectW", wintypes.HANDLE, (wintypes.LPVOID, wintypes.LPCWSTR)),
        (
            "SetInformationJobObject",
            wintypes.BOOL,
            (wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD),
        ),
        ("AssignProcessToJobObject", wintypes.BOOL, (wintypes.HANDLE, wintypes.HANDLE)),
        ("TerminateJobObject", wintypes.BOOL, (wintypes.HANDLE, wintypes.UINT)),
        ("CreateEventW", wintypes.HANDLE, (wintypes.LPVOID, wintypes.BOOL, wintypes.BOOL, wintypes.LPCWSTR)),
        ("OpenEventW", wintypes.HANDLE, (wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR)),
        ("SetEvent", wintypes.BOOL, (wintypes.HANDLE,)),
        (
            "WaitForMultipleObjects",
            wintypes.DWORD,
            (wintypes.DWORD, ctypes.POINTER(wintypes.HANDLE), wintypes.BOOL, wintypes.DWORD),
        ),
        ("CloseHandle", wintypes.BOOL, (wintypes.HANDLE,)),
    ):
        getattr(_kernel, _name).restype, getattr(_kernel, _name).argtypes = _result, _arguments

    class Job:
        """A process and what it starts: all of them are killed with this object, and when this process ends."""

        def __init__(self, child: subprocess.Popen[bytes]) -> None:
            """Put a child into a new job. Raises ``OSError``."""
            self._handle = _checked(_kernel.CreateJobObjectW(None, None))
            try:
                limits = ctypes.create_string_buffer(_LIMITS_BYTES)
                ctypes.c_uint32.from_buffer(limits, _FLAGS_AT).value = _KILL_ON_CLOSE
                _checked(_kernel.SetInformationJobObject(self._handle, _EXTENDED_LIMITS, limits, _LIMITS_BYTES))
                _checked(_kernel.AssignProcessToJobObject(self._handle, int(vars(child)["_handle"])))
            except OSError:
                if child.poll() is None:  # what has ended cannot be put into a job
                    _kernel.CloseHandle(self._handle)
                    raise

        def kill(self) -> None:
            """Kill what is in the job."""
            _kernel.TerminateJobObject(self._handle, signal.SIGTERM)

        def __del__(self, close: Callable[[int], object] = _kernel.CloseHandle) -> None:
            if handle := vars(self).get("_handle"):
                close(handle)

    def take_requests(pid: int, hang_up: Callable[[], object] | None) -> None:
        """Let requests of other processes reach this one; a request to end becomes SIGTERM. Raises ``OSError``."""
        names = [_END] if hang_up is None else [_END, _HANG_UP]
        events = [_checked(_kernel.CreateEventW(None, False, False, _event(pid, name))) for name in names]
        handles = (wintypes.HANDLE * len(events))(*events)

        def listen() -> None:
            while (found := _kernel.WaitForMultipleObjects(len(events), handles, False, _FOREVER)) < len(events):
                if names[found] == _HANG_UP and hang_up is not None:
                    hang_up()
                else:
                    signal.raise_signal(signal.SIGTERM)

        threading.Thread(target=listen, name="requests", daemon=True).start()

    def request_end(pid: int) -> bool:
        """Ask a process to end; False if it takes no requests."""
        return _set(_event(pid, _END))

    def request_hang_up(pid: int) -> bool:
        """Ask a process to hang up; False if it takes no such requests."""
        return _set(_event(pid, _HANG_UP))

    def _event(pid: int, name: str) -> str:
        return f"Local\\llama-runner-{pid}-{name}"

    def _set(name: str) -> bool:
        event = _kernel.OpenEventW(_EVENT_MODIFY_STATE, False, name)
        if not event:
            return False
        try:
            return bool(_kernel.SetEvent(event))
        finally:
            _kernel.CloseHandle(event)

    def _checked(result: int | None) -> int:
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())
        return int(result)
