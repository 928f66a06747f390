"""Telling a webhook that a run failed. Its address is a secret: it is never in a message, a log or an error."""

from __future__ import annotations

import html
from typing import Any

import dagster as dg

from babylon_assets.config.network import is_loopback
from babylon_assets.domain.display_text import neutralize, shorten
from babylon_assets.domain.errors import TransientError
from babylon_assets.orchestration.runtime import window_range

SECONDS = 10
#: Characters of a reason that a chat shows.
LONGEST = 2000


def failure_of(run: dg.DagsterRun, reason: str | None) -> dict[str, Any]:
    """What is told of a failed run; `text` is the whole of it in words, which chat services show."""
    windows = window_range(run.tags)
    where = "" if windows is None else f" for {' to '.join(dict.fromkeys(windows))}"
    text = quote_for_chat((reason or "no reason was given").strip())
    return {
        "text": f"babylon_assets: the run {run.run_id[:8]} of {run.job_name}{where} failed: {text}",
        "run": run.run_id,
        "job": run.job_name,
        "windows": windows and list(windows),
        "reason": text,
    }


def quote_for_chat(text: str) -> str:
    """A text of somebody else for a chat: in Slack's form no link and no mention can be made of it, nor by an `@`."""
    return html.escape(neutralize(shorten(text, LONGEST)), quote=False).replace("@", "@\N{ZERO WIDTH SPACE}")


def post(url: str, message: dict[str, Any]) -> None:
    """Post the message as JSON. A redirect is not followed: it would carry the message to another host.

    Raises:
        TransientError: it was not taken; the address is not in the error.
    """
    import httpx

    try:
        with httpx.Client(timeout=SECONDS, trust_env=not is_loopback(url)) as client:
            status = client.post(url, json=message).status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise TransientError(f"the webhook does not answer: {type(error).__name__}") from None
    if status >= 300:
        raise TransientError(f"the webhook answered {status}")
