"""Records on disk between an answer and the database: files that are only appended to, then read, then removed.

A record is in the kernel's hands before its answer leaves, so that a killed gateway loses none. A file is synced when
it is sealed, some times a second, so that a machine that loses power loses the last second at most. Each process writes
into a folder of its own, which nobody else may read, and holds its lock; the folder of a process that is gone is taken
over by the next one. What a record means is not known.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

_HEAD = struct.Struct("<II")  # length and crc32 of what follows
_LOCK = "lock"
_SUFFIX = ".records"
#: What could not be written to the database for good, for a person to look at; it is not read again.
REFUSED = "refused"
#: The suffix of files that end in something that is no record.
TORN = "torn"


class Spool:
    """The files of one process.

    Args:
        folder: the spool of the home folder, which holds a folder per process.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):  # of another account's folder, which that account sees to
            folder.chmod(0o700)  # what agents were asked and answered is nobody else's to read
        self._own = folder / f"{time.time_ns()}-{os.getpid()}"
        self._own.mkdir(mode=0o700)
        self._locks = [_locked(self._own)]
        self._folders = [*self._abandoned(folder), self._own]
        self._guard = threading.Lock()
        self._file: int | None = None
        self._number = self._appended = 0
        self._bytes = sum(_size(path) for path in self._files())

    def append(self, records: Sequence[bytes]) -> None:
        """Hand records to the kernel.

        Raises:
            OSError: the disk is full or gone; part of them may be there, none is there twice.
        """
        frames = b"".join(_HEAD.pack(len(record), zlib.crc32(record)) + record for record in records)
        with self._guard:
            if self._file is None:
                self._number += 1
                self._file = os.open(self._path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                self._appended = 0
            left = memoryview(frames)
            try:
                while left:
                    left = left[os.write(self._file, left) :]
            except OSError:
                os.ftruncate(self._file, self._appended)
                raise
            self._appended += len(frames)
            self._bytes += len(frames)

    def sealed(self) -> list[Path]:
        """Files of records that are not appended to any more, oldest first and on the disk; the caller removes them.

        What is appended from now on goes to another file, of a higher number, and does not wait for the disk.
        """
        with self._guard:
            ended, self._file, last = self._file, None, self._number
        if ended is not None:
            try:
                os.fsync(ended)
            finally:
                os.close(ended)
        return [path for path in self._files() if path.parent != self._own or int(path.stem) <= last]

    def remove(self, path: Path) -> None:
        """Remove a file whose records are in the database."""
        size = _size(path)
        path.unlink()
        self._forget(size)

    def refuse(self, record: bytes) -> Path:
        """Set a record aside that the database will never take."""
        path = self._own / REFUSED
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.write(_HEAD.pack(len(record), zlib.crc32(record)) + record)
        return path

    def set_aside(self, path: Path) -> Path:
        """Keep a file that could not be read to its end where it is not read again."""
        kept = self._own / f"{path.parent.name}-{path.stem}.{TORN}"
        size = _size(path)
        path.rename(kept)
        self._forget(size)
        return kept

    def size(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def _forget(self, size: int) -> None:
        with self._guard:
            self._bytes -= size

    def _files(self) -> list[Path]:
        return [path for folder in self._folders for path in sorted(folder.glob(f"*{_SUFFIX}"))]

    def close(self) -> None:
        """Let go of the folders; those without records are removed, the others are left for the next process."""
        with self._guard:
            if self._file is not None:
                os.close(self._file)
                self._file = None
        for folder in self._folders:
            if [path.name for path in folder.iterdir()] == [_LOCK]:
                (folder / _LOCK).unlink()
                folder.rmdir()
        for lock in self._locks:
            os.close(lock)

    def _path(self) -> Path:
        return self._own / f"{self._number:08d}{_SUFFIX}"

    def _abandoned(self, folder: Path) -> list[Path]:
        """Folders whose process is gone: nobody holds their lock, which the kernel lets go of however it ended."""
        folders = []
        for other in sorted(folder.iterdir()):
            if other == self._own or not (other / _LOCK).is_file():
                continue
            try:
                self._locks.append(_locked(other))
            except BlockingIOError:
                continue
            folders.append(other)
        return folders


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # written and removed since it was listed
        return 0


def _locked(folder: Path) -> int:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    return lock


def size_of(records: Sequence[bytes]) -> int:
    """The bytes that records take in a file."""
    return sum(_HEAD.size + len(record) for record in records)


def read(path: Path) -> Iterator[bytes]:
    """The records of a file, in their order, up to the first that is not whole: where a killed process stopped."""
    content = path.read_bytes()
    at = 0
    while at + _HEAD.size <= len(content):
        length, checksum = _HEAD.unpack_from(content, at)
        record = content[at + _HEAD.size : at + _HEAD.size + length]
        if len(record) < length or zlib.crc32(record) != checksum:
            return
        yield record
        at += _HEAD.size + length
