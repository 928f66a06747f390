"""Which addresses are this very machine, and that they are reached directly, whatever proxy the environment names."""

from __future__ import annotations

from collections.abc import MutableMapping
from ipaddress import ip_address
from urllib.parse import urlsplit

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine without leaving it."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def reach_loopback_directly(environ: MutableMapping[str, str]) -> None:
    """Except loopback from the proxies that the environment names, for every library that reads them from there."""
    for name in ("NO_PROXY", "no_proxy"):
        excepted = [part.strip() for part in environ.get(name, "").split(",") if part.strip()]
        if "*" not in excepted:
            environ[name] = ",".join(dict.fromkeys([*excepted, *_LOOPBACK]))
