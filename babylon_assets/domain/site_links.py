"""The addresses of the local site's pages, and of Dagster's UI beside it: what these and the report link to.

An address of the site is a path below `SITE`; it names things by what the ledger calls them, so that it stays the same.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

#: The path that the site has beside Dagster's UI, and alone.
SITE = "/site"


def link_checkpoint(policy: str) -> str:
    """The page of a checkpoint, by its policy's name, such as `babylon-agent@3`, or its id."""
    return f"{SITE}/checkpoints/{quote(policy, safe='@')}"


def link_card(policy: str) -> str:
    """The model card of a checkpoint."""
    return f"{link_checkpoint(policy)}/card"


def link_comparison(first: str, second: str) -> str:
    """The page that compares two policies."""
    return f"{SITE}/compare?{urlencode({'a': first, 'b': second})}"


def link_samples(**wanted: str | float | None) -> str:
    """The list of samples, with the filters of the page: window, agent, policy, mode, reason, least, most, text."""
    filters = {name: value for name, value in wanted.items() if value not in (None, "")}
    return f"{SITE}/samples" + (f"?{urlencode(filters)}" if filters else "")


def link_sample(window: str, sample_id: str) -> str:
    """The page of one sample: an answer in full, by the window whose dataset holds it."""
    return f"{SITE}/sample?{urlencode({'window': window, 'id': sample_id})}"


def link_agent(agent: str) -> str:
    """The page of one agent."""
    return f"{SITE}/agent?{urlencode({'id': agent})}"


def link_report() -> str:
    """The report as it was written last."""
    return f"{SITE}/report"


def link_playground(*, a: str = "", b: str = "", window: str = "", sample: str = "") -> str:
    """The playground with these policies, and with the prompt of a recorded sample."""
    filled = {name: value for name, value in (("a", a), ("b", b), ("window", window), ("sample", sample)) if value}
    return f"{SITE}/playground" + (f"?{urlencode(filled)}" if filled else "")


def link_partition(asset: str, window: str) -> str:
    """The page of an asset's window in Dagster's UI."""
    return f"/assets/{asset}?view=partitions&partition={quote(window)}"


#: What templates call, by name.
LINKS = {
    link.__name__: link
    for link in (
        *(link_agent, link_card, link_checkpoint, link_comparison, link_partition, link_playground, link_report),
        *(link_sample, link_samples),
    )
}
