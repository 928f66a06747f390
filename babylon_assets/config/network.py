"""Which addresses are this machine, that these are reached directly, and that no key goes elsewhere in the clear."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, MutableMapping
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


def in_the_clear(url: str) -> bool:
    """Whether what is sent to a URL can be read on its way to another machine."""
    return urlsplit(url).scheme.lower() != "https" and not is_loopback(url)


def is_this_machine(host: str) -> bool:
    """Whether a name or an address is this machine's: only such a one can be listened on."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
    except OSError:
        return False
    return True


def open_library_urls(environ: Mapping[str, str]) -> list[str]:
    """The variables by which libraries find a server that they send a key to, where that key could be read."""
    named = (name for name in environ if re.search(r"_(API_BASE|BASE_URL)$", name))
    return sorted(name for name in named if environ[name].strip() and in_the_clear(environ[name].strip()))


def reach_loopback_directly(environ: MutableMapping[str, str]) -> None:
    """Except loopback from the proxies that the environment names, for every library that reads them from there."""
    for name in ("NO_PROXY", "no_proxy"):
        excepted = [part.strip() for part in environ.get(name, "").split(",") if part.strip()]
        if "*" not in excepted:
            environ[name] = ",".join(dict.fromkeys([*excepted, *_LOOPBACK]))
