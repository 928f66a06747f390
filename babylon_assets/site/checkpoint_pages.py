"""The register of checkpoints, and the page of each: its state, its verdict, its evaluations and what it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from babylon_assets.domain import checkpoint_states as states
from babylon_assets.domain.display_text import as_number, format_number, format_scorers, is_number
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.evaluation_words import OFF_POLICY, describe_windows
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.token_counts import TOKEN_COUNTS, TRAINED, explain_early_end, format_trainable
from babylon_assets.domain.verdict_table import explain_absent, explain_decision, verdict_rows
from babylon_assets.ledger import evaluations, lineage, promotions, verdicts
from babylon_assets.ledger.checkpoint_register import count_states, read_register
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.dataset_counts import read_counts, read_own_reward
from babylon_assets.ledger.evaluations import Evaluation
from babylon_assets.report.guides import render_markdown
from babylon_assets.report.rendering import format_value
from babylon_assets.site.page_shell import Site, can_measure
from babylon_assets.site.policy_pair import suggest_pair, suggest_rows
from babylon_assets.site.query_values import choice_of, count_of, text_of
from babylon_assets.site.report_page import find_report
from babylon_assets.training.model_cards import find_card, read_card

PAGE_ROWS = 50
#: Evaluations of a page, and those beyond them that open on a click.
FIRST_ROWS, MOST_ROWS = 24, 168
#: What a person asks first of a dataset's counts and of a training's numbers.
_COUNTS = ("samples", "groups", "trainable_samples", "trainable_groups", "trainable_tokens")
_NUMBERS = ("loss", *TOKEN_COUNTS, "optimizer_steps", "undone_steps", "kl_to_parent", "kl_to_behaviour", "entropy")
#: What is called otherwise than it is kept: a sample has an advantage, which is another thing.
_RESULTS = {"advantage": "share of the oracle's reward"}
#: The colour of each state.
COLOURS = {
    states.SERVED: "good",
    states.SERVED_BEFORE: "calm",
    states.PASSED: "busy",
    states.REJECTED: "poor",
    states.ROLLED_BACK: "fair",
    states.NO_VERDICT: "busy",
    states.ON_A_BRANCH: "calm",
    states.BASE_MODEL: "calm",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """An evaluation as a row: its numbers, what it was measured on, and all else that it found, in short."""

    evaluation: Evaluation
    valid_share: float | None
    windows: str
    details: str


def show_register(site: Site, request: Request) -> Response:
    """Every checkpoint, newest first, a page at a time."""
    state = choice_of(request.query_params, "state", states.STATES)
    page = count_of(request.query_params, "page", 0, 100_000)
    with site.connect() as conn:
        rows = read_register(conn, state=state, limit=PAGE_ROWS, offset=page * PAGE_ROWS)
        counts = count_states(conn)
        served = promotions.promoted(conn, site.settings.model_name)
        written = find_report(site, conn)
        pair = suggest_rows(rows, suggest_pair(conn, site.settings.model_name))
    total = counts.get(state, 0) if state else sum(counts.values())
    return site.render(
        "register.html",
        rows=rows,
        pair=pair,
        total=total,
        state=state,
        page=page,
        pages=-(-total // PAGE_ROWS),
        counts=counts,
        meanings=states.STATES,
        colours=COLOURS,
        served=policy_name(served.chain, served.step) if served else None,
        written=written,
        measurable=can_measure(site.environment()),
    )


def show_checkpoint(site: Site, request: Request) -> Response:
    """One checkpoint: all that the ledger has of it."""
    with site.connect() as conn:
        checkpoint = lineage.find(conn, text_of(request.path_params, "name"), site.settings.model_name)
        row = read_register(conn, ids=[checkpoint.id])[0]
        verdict = verdicts.verdict_on(conn, checkpoint.id)
        children = _children(conn, checkpoint)
        history = promotions.of_checkpoint(conn, checkpoint.id)
        reward_then = read_own_reward(conn, checkpoint.dataset_id, checkpoint.window_id).mean
        kept, total = evaluations.newest_of_checkpoint(conn, checkpoint.id, MOST_ROWS)
        dataset = _dataset_counts(conn, checkpoint.dataset_id)
        carried = lineage.windows_of(conn, checkpoint)
        scorers = format_scorers(lineage.scorers(conn, checkpoint))
        baselines = _names_of(conn, [evaluation.baseline_id for evaluation in kept])
    measured = [_measured(evaluation) for evaluation in kept if evaluation.evaluation != OFF_POLICY]
    estimates = [_measured(evaluation) for evaluation in kept if evaluation.evaluation == OFF_POLICY]
    return site.render(
        "checkpoint.html",
        row=row,
        checkpoint=checkpoint,
        end=states.explain_end(row.rejected) if row.rejected else None,
        meaning=states.STATES[row.state],
        colours=COLOURS,
        why=explain_decision(verdict.why, verdict.verdict) if verdict else None,
        verdict=verdict,
        rules=verdict_rows(verdict.verdict) if verdict else [],
        absent=explain_absent(verdict.verdict) if verdict else "",
        children=children,
        history=history[:20],
        explain=explain_decision,
        measured=measured[:FIRST_ROWS],
        earlier=measured[FIRST_ROWS:],
        estimates=estimates,
        left_out=total - len(kept),
        baselines=baselines,
        window_reward=_format_rewards(reward_then, row.window_reward),
        dataset=dataset,
        carried=carried,
        scorers=scorers,
        metrics=_numbers(checkpoint.metrics),
        trained=checkpoint.metrics.get(TRAINED),
        ended=explain_early_end(checkpoint.metrics),
        measurable=can_measure(site.environment()),
        has_card=find_card(checkpoint) is not None,
        changed=sorted((name, _shorten(value)) for name, value in checkpoint.settings.items()),
    )


def show_card(site: Site, request: Request) -> Response:
    """The model card in the folder of a checkpoint's weights, which the ledger names; no other file is read."""
    with site.connect() as conn:
        checkpoint = lineage.find(conn, text_of(request.path_params, "name"), site.settings.model_name)
    policy, text = policy_name(checkpoint.chain, checkpoint.step), read_card(checkpoint)
    if text is None:
        raise PermanentError(f"{policy} has no model card on this machine")
    return site.render("card.html", policy=policy, card=render_markdown(site.hide_secrets(text), levels_down=1))


def _children(conn: Connection, checkpoint: Checkpoint) -> list[str]:
    """The policies that were trained from it."""
    query = "SELECT chain, step FROM babylon_training.model_checkpoints WHERE parent_id = %s ORDER BY chain, step"
    return [policy_name(*row) for row in conn.execute(query, [checkpoint.id])]


def _format_rewards(then: float | None, now: float | None) -> str | None:
    """The mean reward of a window when it was trained on, and what late outcomes made of it; None without any."""
    shown = [format_value(reward) for reward in (then, now) if reward is not None]
    return f"{shown[0]} when trained, {shown[1]} now" if len(set(shown)) == 2 else shown[0] if shown else None


def _names_of(conn: Connection, ids: Sequence[str | None]) -> dict[str, str]:
    """The policies' names of some checkpoints, by id."""
    query = "SELECT id, chain, step FROM babylon_training.model_checkpoints WHERE id = ANY(%s)"
    return {identity: policy_name(chain, step) for identity, chain, step in conn.execute(query, [list(ids)])}


def _dataset_counts(conn: Connection, dataset_id: str | None) -> dict[str, Any]:
    """What the dataset that it was trained on holds, in counts."""
    row = read_counts(conn, dataset_id)
    if row is None:
        return {}
    tokens = format_trainable(row.tokens, row.counts)
    return {"samples": row.samples, "tokens": tokens, "counts": _in_order(row.counts, _COUNTS)}


def _measured(evaluation: Evaluation) -> Measured:
    share = as_number(evaluation.results.get("valid_share"))
    details = "; ".join(
        f"{_RESULTS.get(name, name.replace('_', ' '))} {format_number(as_number(value))}"
        for name, value in evaluation.results.items()
        if name != "valid_share" and is_number(value)
    )
    reason = evaluation.results.get("refused")
    words = "; ".join(filter(None, [details, str(reason) if reason else ""]))
    windows = describe_windows(evaluation.evaluation, evaluation.window_id)
    return Measured(evaluation, None if share != share else share, windows, words)


def _numbers(metrics: Any) -> list[tuple[str, str]]:
    """The training's numbers, for people."""
    return [
        (name.replace("_", " "), format_number(as_number(value)))
        for name, value in _in_order(metrics, _NUMBERS).items()
        if is_number(value)
    ]


def _in_order(values: Mapping[str, Any], first: Sequence[str]) -> dict[str, Any]:
    """The values with these names first, in this order, and the others by their names."""
    names = [*(name for name in first if name in values), *sorted(set(values) - set(first))]
    return {name: values[name] for name in names}


def _shorten(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shorten(member)}" for name, member in value.items())
    return format_number(value) if is_number(value) else str(value)
