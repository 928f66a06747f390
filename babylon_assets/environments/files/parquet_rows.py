"""Rows of a Parquet file, decoded by a child process that may take only so much memory.

A small file can name a billion rows, or a page that expands a thousandfold, whatever its own numbers say; the decoder
believes them. Run as a program, this module is that child: it writes each row as a frame of msgpack to its standard
output.
"""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from babylon_assets.domain.errors import MissingDependency, PermanentError
from babylon_assets.environments.files.bounds import EXPANDED, LINE, ROWS

#: The columns that are read, as `exports.table_rows` names them.
COLUMNS = (
    *("window", "trajectory_id", "agent_id", "step", "call", "group_number", "messages", "response", "model", "policy"),
    *("prompt_token_ids", "token_ids", "logprobs", "reward", "components", "facts", "skip_reason"),
    *("tools", "tool_calls", "reasoning", "refused"),
)
#: Bytes of address space of the child: the decoded file, and polars itself.
MEMORY = 2 * EXPANDED
MODULE = "babylon_assets.environments.files.parquet_rows"
#: How long decoding may stand still, and the share of a processor that who waits takes at most: polars looks now and
#: then whether it was interrupted.
STUCK_SECONDS, IDLE_SHARE = 10.0, 0.02
#: Rows that are decoded together.
SLICE = 64
_NO_POLARS, _UNREADABLE, _TOO_LARGE = 3, 4, 5


def parquet_rows(file: Path, memory: int = MEMORY) -> Iterator[dict[str, Any] | None]:
    """The rows of a file in their order; None for one that is too large, or has a value that cannot be decoded.

    Args:
        memory: bytes of address space of the child that decodes it.

    Raises:
        MissingDependency: polars is not installed.
        PermanentError: the file cannot be read, has too many rows, or expands to more than may be held.
    """
    command = [sys.executable, "-m", MODULE, str(file), str(memory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stderr is not None
        try:
            for number, row in enumerate(_frames(child.stdout)):
                if number >= ROWS:
                    raise PermanentError(f"{file} has more than {ROWS:,} rows; split it")
                yield row
            reason = child.stderr.read(1000).decode(errors="replace").strip()
            code = child.wait()
        finally:
            child.kill()
    _explain(file, code, reason)


def _frames(stream: Any) -> Iterator[dict[str, Any] | None]:
    while head := stream.read(4):
        (length,) = struct.unpack(">I", head)
        yield None if length == 0 else msgspec.msgpack.decode(stream.read(length))


def _explain(file: Path, code: int, reason: str) -> None:
    if code == _NO_POLARS:
        raise MissingDependency("Parquet is read with polars; type: pip install polars")
    if code == _UNREADABLE:
        raise PermanentError(f"{file} cannot be read as Parquet ({reason}); export it again")
    if code:
        raise PermanentError(f"{file} is damaged or expands to too much to be held; split it, or export it again")


def main(arguments: list[str], output: BinaryIO) -> int:
    """Write the rows of a file, and return the exit code."""
    memory = int(arguments[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        import polars
    except ImportError:
        return _NO_POLARS
    decoded = threading.Event()
    threading.Thread(target=_end_if_stuck, args=(decoded,), daemon=True).start()
    try:
        schema = polars.read_parquet_schema(arguments[0])
        frame = polars.read_parquet(arguments[0], columns=[name for name in COLUMNS if name in schema])
    except (polars.exceptions.PolarsError, OSError) as error:
        sys.stderr.write(f"{error}"[:1000])
        return _UNREADABLE
    except BaseException:  # without memory polars panics, and a panic is no Exception
        return _TOO_LARGE
    decoded.set()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # polars says there what it cannot convert, and nobody reads so much
    for part in frame.iter_slices(SLICE):
        for content in _encoded(part):
            output.write(struct.pack(">I", len(content)) + content)
    output.flush()
    return 0


def _encoded(part: Any) -> Iterator[bytes]:
    """Some rows of a frame, encoded; nothing for one that is too large, or has a value that Python has no form for."""
    try:
        rows = [msgspec.msgpack.encode(row) for row in part.rows(named=True)]
    except MemoryError:
        raise
    except BaseException:  # a time beyond the year 9999 panics, and a panic is no Exception
        if part.height > 1:
            for place in range(part.height):
                yield from _encoded(part[place])
            return
        rows = [b""]
    yield from (b"" if len(content) > LINE else content for content in rows)


def _end_if_stuck(decoded: threading.Event) -> None:
    """End this process when it does nothing: where polars' own thread died of too little memory, it waits for ever."""
    spent = time.process_time()
    while not decoded.wait(STUCK_SECONDS):
        before, spent = spent, time.process_time()
        if spent - before < IDLE_SHARE * STUCK_SECONDS:
            os._exit(_TOO_LARGE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout.buffer))
