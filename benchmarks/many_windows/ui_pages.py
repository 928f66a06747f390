"""The pages of Dagster's UI that are asked: what each sends to GraphQL is what Chromium sends when it opens the page.

A page is opened once, in the home of many windows. Its queries are those of its first seconds, until it is quiet; what
it asks again and again, to stay up to date, counts once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from urllib.parse import quote

from tests.browser import Browser

_QUIET_SECONDS, _MOST_SECONDS = 3.0, 60.0
#: Keeps what the page asks GraphQL for.
_LISTEN = """
(() => { window.asked = []; const fetch = window.fetch; window.fetch = (where, given) => {
    const url = typeof where === 'string' ? where : where.url;
    if (url.includes('graphql') && given && given.body) window.asked.push(given.body);
    return fetch(where, given); }; })()"""


def list_pages(window: str, run: str) -> dict[str, str]:
    """The address of each page, for a home's newest window and run."""
    asset, partition = "/assets/model_checkpoints", f"view=partitions&partition={quote(window)}"
    return {
        "an asset, with its plots": f"{asset}?view=overview",
        "an asset's partitions": f"{asset}?view=partitions",
        "a window of an asset": f"{asset}?{partition}",
        "a window of training_datasets": f"/assets/training_datasets?{partition}",
        "an asset's events": f"{asset}?view=events",
        "an asset's checks": "/assets/training_datasets?view=checks",
        "the graph": "/locations/babylon_assets/asset-groups/babylon/lineage",
        "runs": "/runs",
        "a run": f"/runs/{run}",
    }


def record_queries(browser: Browser, url: str) -> Sequence[str]:
    """The queries that a page sends, as bodies of requests, in their order."""
    browser.listen(_LISTEN)
    browser.open(url, "")
    bodies: list[str] = []
    began = quiet = time.monotonic()
    while (not bodies or time.monotonic() - quiet < _QUIET_SECONDS) and time.monotonic() - began < _MOST_SECONDS:
        time.sleep(0.3)
        now = list(browser.run("window.asked || []"))
        if len(now) != len(bodies):
            bodies, quiet = now, time.monotonic()
    if not bodies:
        raise SystemExit(f"{url} asked nothing in {_MOST_SECONDS:.0f} seconds")
    return list(dict.fromkeys(bodies))


def names_of(bodies: Sequence[str]) -> list[str]:
    """The queries' names, for a person."""
    return [str(json.loads(body).get("operationName")) for body in bodies]
