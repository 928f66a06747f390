"""What a page in somebody's browser may ask of the gateway: nothing, unless it is the gateway's own or was named.

A browser on the host reaches loopback, and sends what any page tells it to. It says from which page (Origin), and by
which name it found the server (Host), which a page can make its own (DNS rebinding); a page cannot change either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from babylon_assets.serving.http.protocol import ApiError


@dataclass(frozen=True, slots=True)
class WebPages:
    """Which requests are refused for where they come from.

    Attributes:
        hosts: names that requests may be sent to, beside addresses and localhost; None: any.
        origins: pages that may ask.
    """

    hosts: frozenset[str] | None
    origins: Sequence[str]

    def check(self, headers: Headers) -> None:
        """Let the request of a program pass, and that of a page which may ask.

        Raises:
            ApiError: 421 for a name that is not the gateway's, 403 for a page that may not ask.
        """
        hosts = headers.getlist("host")
        if self.hosts is not None and not all(_is_address(name) or name in self.hosts for name in map(_name, hosts)):
            message = "this gateway is not asked by that name; ask it by its address, or add the name to GATEWAY_HOSTS"
            raise ApiError(421, message, code="wrong_host")
        for origin in headers.getlist("origin"):
            if origin.lower() not in self.origins and origin.partition("://")[2] not in hosts:
                message = "that page may not ask this gateway; add its origin to GATEWAY_ORIGINS"
                raise ApiError(403, message, code="foreign_origin")


def require_json(headers: Headers) -> None:
    """Refuse a body that a page may send anywhere without asking: a form, or plain text.

    Raises:
        ApiError: 415.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send the request as Content-Type: application/json", code="unsupported_media_type")


@lru_cache(maxsize=64)
def _name(host: str) -> str:
    """The name in a Host header, without its port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@lru_cache(maxsize=64)
def _is_address(name: str) -> bool:
    """Whether it is an address or this host: a page cannot make these its own."""
    try:
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False
