"""`babylon compare`: two policies side by side."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from babylon_assets.cli.chain import Named
from babylon_assets.cli.list_windows import Json, opened
from babylon_assets.cli.terminal import (
    WIDE,
    bold,
    count,
    count_callback,
    errors,
    fitting_table,
    number,
    output,
    print_fact,
    print_json,
    progress,
    waiting,
)
from babylon_assets.config.settings import load_settings
from babylon_assets.domain.display_text import shorten
from babylon_assets.domain.evaluation_words import describe_windows
from babylon_assets.domain.site_links import link_comparison

if TYPE_CHECKING:  # both need numpy, which no other command waits for
    from babylon_assets.domain.evaluations import Interval
    from babylon_assets.domain.policy_comparison import ComparedPolicies

#: Characters of an answer in the list of prompts.
LONGEST_ANSWER = 200


def compare(
    first: Named,
    second: Named,
    prompts: Annotated[
        int, typer.Option(min=0, max=1000, help="Ask both as many recorded prompts, unless they were asked; 0: none.")
    ] = 32,
    json: Json = False,
) -> None:
    """Compare two policies: which is better, reward with interval, by kind of decision, and where they differ most.

    What the ledger has of both is taken from there. Recorded prompts that both were not asked yet are asked now and
    kept. A difference is the second policy's less the first's.

    Example: [bold]babylon compare babylon-agent@0 babylon-agent@3[/]
    """
    settings = load_settings()
    with waiting(f"comparing {first} with {second}"):
        database = opened(settings)
        from babylon_assets.evaluation.side_by_side import compare_kept, find_pair, measure_both

        with database.connect() as conn:
            pair = find_pair(conn, first, second, settings.model_name)
        with progress("{task.completed} of {task.total} prompts") as bar:
            reason = measure_both(settings, database, *pair, prompts, count_callback(bar)) if prompts else ""
        with database.connect() as conn:
            compared = compare_kept(conn, *pair)
    if json:
        print_json({**_facts(compared), "not_asked": reason or None})
        return
    _show(compared)
    if reason:
        errors.print(f"no recorded prompts were asked: {reason}", soft_wrap=True)
    page = f"http://127.0.0.1:{settings.dagster_port}{link_comparison(compared.first, compared.second)}"
    output.print(f"page: {page}, while babylon up runs", soft_wrap=True)


def _show(compared: ComparedPolicies) -> None:
    from babylon_assets.domain.policy_comparison import explain_comparison

    output.print(bold(explain_comparison(compared) or f"{compared.first} and {compared.second}"))
    if not compared.measured:
        output.print("no evaluation has measured both in the same way")
    else:
        output.print(_measured_table(compared))
    if compared.kinds:
        output.print()
        output.print(bold("By what the recorded agent did at the prompt:"))
        output.print(_kinds_table(compared))
    if compared.differing:
        output.print()
        output.print(bold("Where their answers differ most:"))
    for prompt in compared.differing:
        output.print()
        step = prompt.prompt.split("/")[-2:][0]
        chosen = prompt.kind or "what is not kept"
        place = f"{prompt.first.agent} in {prompt.first.window}, step {step}"
        output.print(f"{place}; the recorded agent chose {chosen}", highlight=False)
        for name, answer, action, text in zip(
            (compared.first, compared.second), (prompt.first, prompt.second), prompt.actions, prompt.texts, strict=True
        ):
            worth = number(answer.reward) if answer.valid else f"{number(answer.reward)} (invalid)"
            spoken = shorten(" ".join(text.split()), LONGEST_ANSWER) or "its text was not kept"
            print_fact(name, f"{worth}  {action.removesuffix(' invalid')}  {spoken}", indent=2)


def _measured_table(compared: ComparedPolicies) -> Table:
    first, second = compared.first, compared.second
    rows = [
        {
            "evaluation": row.evaluation.replace("_", " ") + (f" of {windows}" if windows else ""),
            first: _spoken(row.first),
            second: _spoken(row.second),
            "difference": _spoken(row.difference),
            "valid": " and ".join("-" if share is None else f"{share:.1%}" for share in row.valid_shares),
        }
        for row in compared.measured
        for windows in [describe_windows(row.evaluation, row.window)]
    ]
    return fitting_table(rows, drop=("valid",), right=(first, second, "difference", "valid"))


def _kinds_table(compared: ComparedPolicies) -> Table:
    first, second = compared.first, compared.second
    rows = [
        {
            "recorded agent did": row.kind,
            "prompts": count(row.prompts),
            first: number(row.first),
            second: number(row.second),
            "difference": _spoken(row.difference),
        }
        for row in compared.kinds
    ]
    return fitting_table(rows, right=("prompts", first, second, "difference"))


def _spoken(interval: Interval | None) -> str:
    """A value with its interval, for a table; below it where the terminal is narrow."""
    if interval is None:
        return "-"
    if math.isnan(interval.low):
        return number(interval.value)
    ends = f"[{number(interval.low)}, {number(interval.high)}]"
    return f"{number(interval.value)} {ends}" if output.width >= WIDE else f"{number(interval.value)}\n{ends}"


def _facts(compared: ComparedPolicies) -> dict[str, Any]:
    """The comparison for scripts; a number that is not known is null."""

    def known(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: known(member) for name, member in value.items()}
        if hasattr(value, "_asdict"):
            return known(value._asdict())
        if isinstance(value, list | tuple):
            return [known(member) for member in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    facts: dict[str, Any] = known(asdict(compared))
    return facts
