"""Questions to the gateway over HTTP, as any client asks it: an answer with the probability of each of its tokens."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple

from babylon_assets.config.gateway import GatewaySettings
from babylon_assets.domain.display_text import shorten
from babylon_assets.domain.trajectories import Message

#: An answer waits for those before it.
TIMEOUT_SECONDS = 90
#: Who asks, in the gateway's record: no agent of an environment.
ASKER = "site-playground"
#: Straight to loopback, whatever proxy the environment names.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class AnswerToken(NamedTuple):
    """A sampled token and its probability at temperature 1."""

    text: str
    probability: float


class GatewayAnswer(NamedTuple):
    """What a policy answered; `error` says why it did not, in place of the rest."""

    text: str = ""
    tokens: tuple[AnswerToken, ...] = ()
    finish_reason: str = ""
    error: str = ""

    @property
    def log_probability(self) -> float | None:
        """Natural log-probability of the whole answer."""
        return sum(math.log(max(token.probability, 1e-300)) for token in self.tokens) if self.tokens else None


def gateway_url(settings: GatewaySettings) -> str:
    """Where the gateway is asked from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{settings.port}/v1"


def ask_gateway(
    settings: GatewaySettings, policy: str, messages: Sequence[Message], *, seed: int, max_tokens: int, key: str = ""
) -> GatewayAnswer:
    """Ask a policy; the same seed and conversation give the same answer."""
    body = {
        "model": policy,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "seed": seed,
        "max_tokens": max_tokens,
        "logprobs": True,
        "user": ASKER,
    }
    headers = {"content-type": "application/json", "authorization": f"Bearer {key or 'none-needed'}"}
    url = f"{gateway_url(settings)}/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with _DIRECT.open(request, timeout=TIMEOUT_SECONDS) as reply:
            return _read_reply(json.load(reply), policy)
    except urllib.error.HTTPError as refusal:
        return GatewayAnswer(error=_explain_refusal(refusal))
    except (OSError, ValueError):
        return GatewayAnswer(error=f"The gateway does not answer at {url}. Start it with babylon up or babylon serve.")


def _read_reply(reply: Any, policy: str) -> GatewayAnswer:
    if reply.get("model") != policy:
        return GatewayAnswer(error=f"The gateway does not have {policy}: {reply.get('model')} answered in its place.")
    choice = reply["choices"][0]
    content = (choice.get("logprobs") or {}).get("content") or []
    tokens = tuple(AnswerToken(str(token["token"]), math.exp(min(0.0, float(token["logprob"])))) for token in content)
    return GatewayAnswer(choice["message"].get("content") or "", tokens, str(choice.get("finish_reason") or ""))


def _explain_refusal(refusal: urllib.error.HTTPError) -> str:
    """The gateway's own sentence."""
    if refusal.code == 401:
        return "The gateway asks for a key. Write one of its keys below."
    try:
        message = json.loads(refusal.read(100_000))["error"]["message"]
    except (ValueError, KeyError, TypeError, OSError):
        message = f"status {refusal.code}"
    return f"The gateway refused: {shorten(str(message), 400)}."
