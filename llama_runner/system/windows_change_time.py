"""When a file changed, on Windows: what ``st_ctime`` is elsewhere. Empty on other systems."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes
    from typing import TYPE_CHECKING

    if TYPE_CHECKING:
        from pathlib import Path

    _READ_ATTRIBUTES, _SHARE_ALL, _OPEN_EXISTING, _DIRECTORIES_TOO = 0x80, 7, 3, 0x02000000
    _BASIC_INFO, _BASIC_INFO_BYTES, _CHANGE_TIME_AT, _UNIX_EPOCH = 0, 40, 24, 116_444_736_000_000_000
    """Of FILE_BASIC_INFO; its times are in units of 100 ns since 1601."""

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.CreateFileW.restype = wintypes.HANDLE
    _kernel.CreateFileW.argtypes = (
        *(wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID, wintypes.DWORD, wintypes.DWORD),
        wintypes.HANDLE,
    )
    _kernel.GetFileInformationByHandleEx.restype = wintypes.BOOL
    _kernel.GetFileInformationByHandleEx.argtypes = (wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD)
    _kernel.CloseHandle.argtypes = (wintypes.HANDLE,)

    def change_time_ns(file: int | str | Path) -> int:
        """Return when the bytes or attributes of a file changed, a path or a descriptor. Raises ``OSError``.

        Returns 0 where the file system does not keep that, as FAT.
        """
        if isinstance(file, int):
            return _of_handle(msvcrt.get_osfhandle(file))
        handle = _kernel.CreateFileW(
            str(file), _READ_ATTRIBUTES, _SHARE_ALL, None, _OPEN_EXISTING, _DIRECTORIES_TOO, None
        )
        if handle == wintypes.HANDLE(-1).value:
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            return _of_handle(handle)
        finally:
            _kernel.CloseHandle(handle)

    def _of_handle(handle: int) -> int:
        found = ctypes.create_string_buffer(_BASIC_INFO_BYTES)
        is_known = _kernel.GetFileInformationByHandleEx(handle, _BASIC_INFO, found, _BASIC_INFO_BYTES)
        value = ctypes.c_int64.from_buffer(found, _CHANGE_TIME_AT).value if is_known else 0
        return (value - _UNIX_EPOCH) * 100 if value else 0
