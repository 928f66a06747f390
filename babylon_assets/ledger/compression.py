"""How large values are kept: zstd, in columns that PostgreSQL stores as they are."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import zstandard


class _Zstd(threading.local):
    """Each thread's own contexts, which no two may use at once; making one costs as much as 5 KB of compressing."""

    def __init__(self) -> None:
        # As for large inputs: what level 1 takes by itself for 25 KB of prompts is 7% smaller and costs 20% more.
        fast = zstandard.ZstdCompressionParameters.from_level(1)
        self.compressor = zstandard.ZstdCompressor(compression_params=fast)
        self.decompressor = zstandard.ZstdDecompressor()


_ZSTD = _Zstd()


def pack(value: bytes) -> bytes:
    """Bytes for a bytea column with external storage: zstd level 1, at 20 MB three times faster than jsonb."""
    return _ZSTD.compressor.compress(value)


def pack_parts(parts: Iterable[bytes]) -> bytes:
    """As `pack`, of bytes that come in parts; the whole is never held uncompressed."""
    compressor = _ZSTD.compressor.compressobj()
    return b"".join([*map(compressor.compress, parts), compressor.flush()])


def unpack(blob: bytes) -> bytes:
    """The bytes that `pack` was given.

    Raises:
        ValueError: when the blob was not made by it.
    """
    decompressor = _ZSTD.decompressor.decompressobj()
    try:
        value = decompressor.decompress(blob)
    except zstandard.ZstdError as error:
        raise ValueError(f"not compressed with zstd: {error}") from None
    if not decompressor.eof:
        raise ValueError("not compressed with zstd: it ends too early")
    return value
