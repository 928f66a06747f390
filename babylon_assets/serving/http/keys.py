"""Who may ask the gateway, and how much at once: keys by their hashes, and what each has in use.

The server knows only hashes; a key itself is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from babylon_assets.domain.policies import Caller
from babylon_assets.serving.http.protocol import ApiError

#: The one who asks where no keys are set.
ANYBODY = "anybody"


def new_key() -> tuple[str, str]:
    """A new key and its hash; 256 random bits, so that a plain sha256 cannot be searched."""
    key = f"bab-{secrets.token_urlsafe(32)}"
    return key, hashed(key)


def hashed(key: str) -> str:
    """The hex sha256 of a key, as GATEWAY_KEYS has it."""
    return hashlib.sha256(key.encode()).hexdigest()


def authorization(headers: Mapping[str, str]) -> str | None:
    """The Authorization header, or what Anthropic's clients send in its place: X-Api-Key."""
    key = headers.get("x-api-key")
    return headers.get("authorization") or (None if key is None else f"Bearer {key}")


class Access:
    """Decides who asks, and refuses who asks too much.

    Args:
        keys: hash by name, or `hash:agents` for a key of certain agents; empty: everybody is `anybody`.
        concurrency: answers that one key may be waiting for.
        tokens_per_minute: what one key may use; None: no limit.
    """

    def __init__(self, keys: Mapping[str, str], concurrency: int, tokens_per_minute: int | None) -> None:
        self._keys = {name: value.partition(":")[0] for name, value in keys.items()}
        self._agents = {name: value.partition(":")[2].split("|") for name, value in keys.items() if ":" in value}
        self._concurrency, self._rate = concurrency, tokens_per_minute
        self._waiting: dict[str, int] = defaultdict(int)
        self._spent: dict[str, tuple[float, float]] = {}

    def who(self, authorization: str | None) -> str:
        """The name of the key in an Authorization header.

        Every hash is compared, each in constant time: how long it takes says nothing about any of them.

        Raises:
            ApiError: 401.
        """
        if not self._keys:
            return ANYBODY
        scheme, _, key = (authorization or "").partition(" ")
        given, owner = hashed(key.strip()), None
        for name, digest in self._keys.items():
            if hmac.compare_digest(given, digest):
                owner = name
        if owner is None or scheme.lower() != "bearer":
            raise ApiError(401, "no such key; send one as Authorization: Bearer <key>", code="invalid_api_key")
        return owner

    def require_own_agent(self, name: str, caller: Caller) -> None:
        """Refuse a caller that names an agent which the key does not speak for.

        A key that is bound to agents speaks for these, any other key for all agents that no key is bound to. With a
        bound key, who names a trajectory also names its agent.

        Raises:
            ApiError: 403.
        """
        own = self._agents.get(name)
        if caller.agent is None:
            allowed = own is None or caller.trajectory is None
        elif own is not None:
            allowed = _matches(caller.agent, own)
        else:
            allowed = not any(_matches(caller.agent, patterns) for patterns in self._agents.values())
        if not allowed:
            message = "this key does not speak for that agent; use the agent's own key"
            raise ApiError(403, message, param="user", code="agent_not_allowed")

    @contextmanager
    def place(self, name: str, answers: int) -> Iterator[None]:
        """Hold places for so many answers.

        Raises:
            ApiError: 429, when the key waits for too many already, or has used up its minute's tokens.
        """
        if self._waiting[name] + answers > self._concurrency:
            reason = f"this key may wait for {self._concurrency} answers at a time"
            raise ApiError(429, reason, code="rate_limit_exceeded", retry_after=1)
        behind = self._behind(name)
        if behind > 0 and self._rate is not None:
            reason = f"this key may use {self._rate} tokens a minute"
            raise ApiError(429, reason, code="rate_limit_exceeded", retry_after=int(60 * behind / self._rate) + 1)
        self._waiting[name] += answers
        try:
            yield
        finally:
            self._waiting[name] -= answers

    def held(self, name: str) -> int:
        """How many answers a key is waiting for."""
        return self._waiting[name]

    def spend(self, name: str, tokens: int) -> None:
        """Count tokens that were used; a bucket that a minute fills, and that may be overdrawn by one request."""
        if self._rate is not None:
            self._spent[name] = (self._behind(name) + self._rate + tokens, time.monotonic())

    def _behind(self, name: str) -> float:
        """By how many tokens the bucket is overdrawn; negative while there are some left."""
        if self._rate is None or name not in self._spent:
            return float(-(self._rate or 0))
        level, at = self._spent[name]
        return max(0.0, level - (time.monotonic() - at) * self._rate / 60) - self._rate


def _matches(agent: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(agent, pattern) for pattern in patterns)
