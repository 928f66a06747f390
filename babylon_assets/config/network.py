"""Which addresses are this machine, that these are reached directly, and that no key goes elsewhere in the clear."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, MutableMapping
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from babylon_assets.domain.errors import SettingsError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: By which huggingface_hub finds the hub that it sends HF_TOKEN to.
HUB = "HF_ENDPOINT"


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
    named = [name for name in environ if re.search(r"_(API_BASE|BASE_URL)$", name)]
    named += [HUB] if environ.get("HF_TOKEN") and HUB in environ else []
    return sorted(name for name in named if environ[name].strip() and in_the_clear(environ[name].strip()))


def reach_loopback_directly(environ: MutableMapping[str, str]) -> None:
    """Except loopback from the proxies that the environment names, for every library that reads them from there.

    Libraries read one of both spellings, so what only one of them excepts is excepted in the other as well.
    """
    given = {name: environ.get(name, "").strip() for name in ("NO_PROXY", "no_proxy")}
    for name, text in given.items():
        listed = text or given["NO_PROXY"] or given["no_proxy"]
        excepted = [part.strip() for part in listed.split(",") if part.strip()]
        environ[name] = "*" if "*" in excepted else ",".join(dict.fromkeys([*excepted, *_LOOPBACK]))


def proxy_for(url: str) -> str | None:
    """The HTTP proxy that the environment names for a URL: that of its scheme, or the one for all.

    Raises:
        SettingsError: it is a SOCKS proxy.
    """
    address = urlsplit(url)
    if is_loopback(url) or proxy_bypass(address.hostname or ""):
        return None
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and proxy.lower().startswith("socks"):
        raise SettingsError(
            f"{address.hostname} cannot be asked through a SOCKS proxy; "
            f"set {address.scheme.upper()}_PROXY to an HTTP proxy, or name the host in NO_PROXY"
        )
    return proxy
