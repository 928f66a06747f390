"""The samples, searched and filtered, and the page of one: the answer in full, its reward and its neighbours.

SQL tells samples apart by all that has a column. Texts and actions are kept compressed: for these the search reads
the samples that are left, up to a bound, says how far it came, and goes on from there on a click.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from babylon_assets.domain.display_text import neutralize, shorten
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.policies import complete_name
from babylon_assets.domain.site_links import link_samples
from babylon_assets.domain.trajectories import Exchange, StepFacts
from babylon_assets.environments.base import Environment
from babylon_assets.ledger import lineage
from babylon_assets.ledger.agent_rewards import RewardPart, reward_parts
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.sample_search import (
    MOST_NEIGHBOURS,
    SampleFilter,
    SamplePosition,
    SampleRow,
    read_neighbours,
    read_sample,
    read_steps_of,
    read_text,
    read_texts,
    stream_samples,
)
from babylon_assets.site.page_shell import Site
from babylon_assets.site.query_values import WrongValueError, choice_of, number_of, optional, text_of, window_of

PAGE_ROWS = 50
#: A search ends after so many samples whose texts were looked at, so many that were compared, or so many seconds.
MOST_LOOKED_AT, MOST_COMPARED, MOST_SECONDS = 20_000, 50_000, 2.0
MODES = {"policy_gradient": "good", "recompute": "busy", "sft": "fair", "skip": "calm"}


class ShownSample(NamedTuple):
    """A sample as a row of a table."""

    row: SampleRow
    action: str
    answer: str


@dataclass(frozen=True, slots=True)
class SearchWords:
    """What texts and actions are to contain, in lower case; empty: anything."""

    text: str
    action: str

    def __bool__(self) -> bool:
        return bool(self.text or self.action)

    def match(self, exchange: Exchange | None, action: str) -> bool:
        if self.action and self.action not in action.lower():
            return False
        if not self.text:
            return True
        texts = [] if exchange is None else [exchange.response, *(message.content for message in exchange.messages)]
        return any(self.text in text.lower() for text in texts)


class SearchResult(NamedTuple):
    """The samples of a page, from where the search goes on (None: there is no more), and how many it looked at."""

    shown: list[ShownSample]
    position: SamplePosition | None
    looked_at: int


def list_samples(site: Site, request: Request) -> Response:
    """The samples that pass the filters, newest window first."""
    given, chain = request.query_params, site.settings.model_name
    policy = optional(given, "policy")
    wanted = SampleFilter(
        window=window_of(given, site.settings.windows),
        agent=optional(given, "agent"),
        policy=complete_name(policy, chain) if policy else None,
        mode=choice_of(given, "mode", MODES),
        reason=optional(given, "reason"),
        least=number_of(given, "least"),
        most=number_of(given, "most"),
    )
    words = SearchWords(text_of(given, "text").lower(), text_of(given, "action").lower())
    with site.connect() as conn:
        result = search(site, conn, wanted, words, _position(given))
        reasons = _skip_reasons(conn)
        unknown = "" if result.shown else _unknown_policy(conn, wanted.policy, chain)
    filters = {name: text_of(given, name) for name in _FILTERS}
    onward = None
    if result.position is not None:
        onward = link_samples(**filters, after=_write(result.position))
    return site.render(
        "samples.html",
        shown=result.shown,
        stopped_early=result.position is not None and len(result.shown) < PAGE_ROWS,
        unknown=unknown,
        looked_at=result.looked_at,
        reached=result.position.window if result.position else None,
        onward=onward,
        filters=filters,
        filtered=any(filters.values()),
        begun="after" in given,
        modes=MODES,
        reasons=reasons,
    )


def _unknown_policy(conn: Connection, name: str | None, chain: str) -> str:
    """That nothing is known of a policy that is looked for; empty where there is one, or none is looked for."""
    try:
        if name:
            lineage.find(conn, name, chain)
    except PermanentError as error:
        return f"{error}."
    return ""


_FILTERS = ("text", "action", "agent", "policy", "mode", "reason", "least", "most", "window")


def search(
    site: Site, conn: Connection, wanted: SampleFilter, words: SearchWords, after: SamplePosition | None
) -> SearchResult:
    """A page of samples; one that finds few looks no further than its bounds."""
    environment = site.environment()
    shown: list[ShownSample] = []
    looked_at, texts, deadline = 0, 0, time.monotonic() + MOST_SECONDS
    for batch in stream_samples(conn, wanted, after, 4 * PAGE_ROWS if words else PAGE_ROWS):
        looked_at += batch.compared
        texts += len(batch.rows) if words else 0
        members = show(site, conn, environment, batch.rows, words)
        room = PAGE_ROWS - len(shown)
        shown += members[:room]
        if len(members) >= room:
            last = shown[-1].row
            return SearchResult(shown, SamplePosition(last.window, last.trajectory_id, last.step, last.call), looked_at)
        if texts >= MOST_LOOKED_AT or looked_at >= MOST_COMPARED or time.monotonic() > deadline:
            return SearchResult(shown, batch.position, looked_at)
    return SearchResult(shown, None, looked_at)


def show(
    site: Site,
    conn: Connection,
    environment: Environment,
    rows: Sequence[SampleRow],
    words: SearchWords | None = None,
) -> list[ShownSample]:
    """Samples with their actions and their answers; of those that contain the words, if there are any."""
    if not rows:
        return []
    facts, texts = read_steps_of(conn, (row.trajectory_id for row in rows)), read_texts(conn, rows)
    site.look_up_names(conn, environment, facts.values())
    shown = []
    for row in rows:
        action = _action(environment, facts.get((row.trajectory_id, row.step)))
        exchange = texts.get((row.dataset_id, row.sample_id))
        if words is None or words.match(exchange, action):
            shown.append(ShownSample(row, action, exchange.response if exchange else ""))
    return shown


def _action(environment: Environment, step: StepFacts | None) -> str:
    return "" if step is None else environment.describe_action(step)


def show_sample(site: Site, request: Request) -> Response:
    """One answer in full."""
    with site.connect() as conn:
        row, exchange = _find(conn, request)
        environment = site.environment()
        facts = read_steps_of(conn, [row.trajectory_id])
        parts = reward_parts(conn, row.own_window, row.trajectory_id, row.step)
        site.look_up_names(conn, environment, facts.values())
        neighbours = show(site, conn, environment, read_neighbours(conn, row))
    step = facts.get((row.trajectory_id, row.step))
    return site.render(
        "sample.html",
        row=row,
        exchange=exchange,
        action=_action(environment, step),
        error=step.error if step else None,
        invalid=bool(step and step.invalid),
        explained=any(part.reasoning for part in parts if part.scorer != "reward"),
        parts=_weighed(parts, site.settings.rewards.weights),
        outcome=next((part for part in parts if part.scorer == "reward"), None),
        neighbours=neighbours,
        most=MOST_NEIGHBOURS,
        compared=[sample for sample in neighbours if sample.row.advantage is not None],
        modes=MODES,
    )


def download_sample(site: Site, request: Request) -> Response:
    """The conversation and the answer as a text, whole."""
    with site.connect() as conn:
        row, exchange = _find(conn, request)
    if exchange is None:
        raise PermanentError(f"the texts of {row.sample_id} are not kept any more")
    parts = [*((message.role, message.content) for message in exchange.messages), ("answer", exchange.response)]
    text = "\n\n".join(f"--- {role} ---\n{content}" for role, content in parts)
    return PlainTextResponse(neutralize(site.hide_secrets(text)))


def _find(conn: Connection, request: Request) -> tuple[SampleRow, Exchange | None]:
    window, name = text_of(request.query_params, "window"), text_of(request.query_params, "id")
    row = read_sample(conn, window, name)
    if row is None:
        raise PermanentError(
            f"the newest dataset of {window or 'that window'} has no sample {shorten(name, 200)!r}; look for it among "
            "the samples"
        )
    return row, read_text(conn, row)


def _weighed(
    parts: Sequence[RewardPart], weights: Mapping[str, float]
) -> list[tuple[RewardPart, float | None, float | None]]:
    """Each scorer with its weight, and what it gives to the reward; None where it has no weight or no number."""
    rows = []
    for part in parts:
        if part.scorer != "reward":
            weight = weights.get(part.scorer)
            given = None if weight is None or part.score is None else weight * part.score
            rows.append((part, weight, given))
    return rows


def _skip_reasons(conn: Connection) -> list[str]:
    """Why samples of the newest windows are skipped."""
    query = """
        SELECT DISTINCT substr(kind, 7) FROM (
            SELECT dataset_id FROM babylon_training.windows WHERE dataset_id IS NOT NULL
            ORDER BY window_id DESC LIMIT 48) AS played
        CROSS JOIN LATERAL (
            SELECT counts FROM babylon_training.training_datasets WHERE id = played.dataset_id OFFSET 0) AS made
        CROSS JOIN LATERAL jsonb_object_keys(made.counts) AS kind WHERE starts_with(kind, 'skip: ') ORDER BY 1"""
    return [reason for (reason,) in conn.execute(query)]


def _write(position: SamplePosition) -> str:
    """A position as a value of an address."""
    if position.past:
        return position.window
    return f"{position.window}/{position.step}/{position.call}/{position.trajectory_id}"


def _position(given: Mapping[str, str]) -> SamplePosition | None:
    text = text_of(given, "after")
    if not text:
        return None
    match = re.fullmatch(r"([^/]+)(?:/([0-9]{1,9})/([0-9]{1,9})/(.+))?", text, re.DOTALL)
    if match is None:
        raise WrongValueError("after is no place of a search; begin the search again")
    window, step, call, trajectory = match.groups()
    if trajectory is None:
        return SamplePosition(window, past=True)
    return SamplePosition(window, trajectory, int(step), int(call))
