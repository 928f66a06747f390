"""Questions to the gateway over HTTP, as any client asks it: an answer with the probability of each of its tokens."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from babylon_assets.config.gateway import GatewaySettings
from babylon_assets.domain.display_text import shorten
from babylon_assets.domain.trajectories import Message

if TYPE_CHECKING:
    from aiohttp import ClientResponse

#: An answer waits for those before it.
TIMEOUT_SECONDS = 90
#: Who asks, in the gateway's record: no agent of an environment.
ASKER = "site-playground"
#: Far more than the longest answer of the form with its probabilities.
MOST_REPLY_BYTES = 8_000_000


class AnswerToken(NamedTuple):
    """A sampled token and its probability at temperature 1."""

    text: str
    probability: float


class _TokenReply(msgspec.Struct):
    token: str
    logprob: float


class _LogprobsReply(msgspec.Struct):
    content: list[_TokenReply] | None = None


class _MessageReply(msgspec.Struct):
    content: str | None = None


class _ChoiceReply(msgspec.Struct):
    message: _MessageReply
    logprobs: _LogprobsReply | None = None
    finish_reason: str | None = None


class _UsageReply(msgspec.Struct):
    completion_tokens: int = 0


class _Reply(msgspec.Struct):
    """What is read of the gateway's answer; another server may stand behind it, so that its form is checked."""

    model: str
    choices: Annotated[list[_ChoiceReply], msgspec.Meta(min_length=1)]
    usage: _UsageReply | None = None


class GatewayAnswer(NamedTuple):
    """What a policy answered; `error` says why it did not, in place of the rest.

    Attributes:
        tokens: those that are text.
        length: how many were sampled, with the one that ended the answer, as the record counts them.
    """

    text: str = ""
    tokens: tuple[AnswerToken, ...] = ()
    length: int = 0
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


async def ask_gateway(
    settings: GatewaySettings,
    policy: str,
    messages: Sequence[Message],
    *,
    seed: int,
    temperature: float,
    max_tokens: int,
    key: str = "",
) -> GatewayAnswer:
    """Ask a policy; the same question gives the same answer. Whoever cancels it frees the gateway."""
    from aiohttp import ClientError, ClientSession

    if not (key.isascii() and key.isprintable()):
        return GatewayAnswer(error="No key of the gateway has such characters. Write one of its keys below.")
    body = {
        "model": policy,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "seed": seed,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "logprobs": True,
        "user": ASKER,
    }
    headers = {
        "content-type": "application/json",
        "accept-encoding": "identity",
        "authorization": f"Bearer {key or 'none-needed'}",
    }
    url = f"{gateway_url(settings)}/chat/completions"
    try:
        # A session reads no proxy, no netrc and no cookie of the environment, and another place is not asked.
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            ClientSession() as session,
            session.post(url, data=json.dumps(body), headers=headers, allow_redirects=False) as reply,
        ):
            return _read_reply(reply.status, await _read_whole(reply), policy, max_tokens)
    except TimeoutError:
        return GatewayAnswer(error=f"The gateway did not answer within {TIMEOUT_SECONDS} s. Try again later.")
    except (OSError, ClientError):
        return GatewayAnswer(error=f"The gateway does not answer at {url}. Start it with babylon up or babylon serve.")


async def _read_whole(reply: ClientResponse) -> bytearray:
    """The body; nothing of one that is longer than any answer."""
    body = bytearray()
    async for part in reply.content.iter_any():
        body += part
        if len(body) > MOST_REPLY_BYTES:
            return bytearray()
    return body


def _read_reply(status: int, body: bytearray, policy: str, max_tokens: int) -> GatewayAnswer:
    if status != 200:
        return GatewayAnswer(error=_explain_refusal(status, body))
    try:
        reply = msgspec.json.decode(body, type=_Reply)
    except (ValueError, msgspec.MsgspecError):
        return GatewayAnswer(error="The gateway's answer could not be read. See whether it is a gateway that answers.")
    if reply.model != policy:
        name = shorten(reply.model, 200)
        return GatewayAnswer(error=f"The gateway does not have {policy}: {name} answered in its place.")
    choice = reply.choices[0]
    sampled = (choice.logprobs.content if choice.logprobs else None) or []
    tokens = tuple(AnswerToken(part.token, math.exp(min(0.0, part.logprob))) for part in sampled[:max_tokens])
    sampled_tokens = reply.usage.completion_tokens if reply.usage else 0
    length = max(len(tokens), min(sampled_tokens, max_tokens))
    return GatewayAnswer(choice.message.content or "", tokens, length, choice.finish_reason or "")


def _explain_refusal(status: int, body: bytearray) -> str:
    """The gateway's own sentence."""
    if status == 401:
        return "The gateway asks for a key. Write one of its keys below."
    try:
        refusal: Any = msgspec.json.decode(body)
        message = refusal["error"]["message"]
    except (ValueError, msgspec.MsgspecError, KeyError, TypeError):
        message = f"status {status}"
    return f"The gateway refused: {shorten(str(message), 400)}."
