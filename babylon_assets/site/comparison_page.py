"""Two policies side by side as a page, from what the ledger has of both."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from babylon_assets.domain.evaluation_words import describe_windows
from babylon_assets.domain.policy_comparison import PromptTwice, describe_difference, explain_comparison
from babylon_assets.ledger import lineage
from babylon_assets.ledger.checkpoint_register import newest_names
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.sample_search import read_sample, read_texts
from babylon_assets.site.page_shell import Site
from babylon_assets.site.policy_pair import suggest_pair
from babylon_assets.site.query_values import text_of


def show_comparison(site: Site, request: Request) -> Response:
    """The page of two policies; without them, the form that asks for them, with the two that a person means first."""
    from babylon_assets.evaluation.side_by_side import compare_kept

    given = [text_of(request.query_params, name) for name in ("a", "b")]
    with site.connect() as conn:
        names = newest_names(conn)
        compared, prompts = None, {}
        if all(given):
            compared = compare_kept(conn, *(lineage.find(conn, name, site.settings.model_name) for name in given))
            prompts = _read_prompts(conn, compared.differing)
        else:
            meant = suggest_pair(conn, site.settings.model_name)
            given = [name or other for name, other in zip(given, meant, strict=False)]
    return site.render(
        "compare.html",
        given=given,
        names=names,
        compared=compared,
        verdict=explain_comparison(compared) if compared else "",
        prompts=prompts,
        significance=describe_difference,
        windows_of=describe_windows,
        can_ask=site.environment().answers is not None,
    )


def _read_prompts(conn: Connection, differing: Sequence[PromptTwice]) -> dict[str, str]:
    """The last message of each prompt, which is what was new; without those that are not kept."""
    kept = [read_sample(conn, twice.first.window, twice.prompt) for twice in differing]
    texts = read_texts(conn, [row for row in kept if row is not None])
    return {name: text.messages[-1].content for (_, name), text in texts.items() if text.messages}
