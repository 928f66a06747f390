"""Two checkpoints side by side: from what the ledger has of both, and measured now where it has too little."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.display_text import is_number
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.evaluation_words import OFF_POLICY, RECORDED_PROMPTS
from babylon_assets.domain.evaluations import Interval, paired
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.policy_comparison import (
    ComparedPolicies,
    MeasuredTwice,
    PromptTwice,
    compare_kinds,
    compare_prompts,
    rank_differing,
)
from babylon_assets.domain.prompt_evaluation import PromptAnswer
from babylon_assets.ledger import evaluations, lineage
from babylon_assets.ledger.asset_frames import reading
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Connection, Database
from babylon_assets.ledger.evaluations import Evaluation
from babylon_assets.ledger.sample_search import read_steps_of


def compare(first: str, second: str, *, settings: Settings | None = None) -> ComparedPolicies:
    """Two policies side by side, from what the ledger has of both; `babylon compare` measures what it has not.

    Args:
        first, second: policies, such as `babylon-agent@3`.
        settings: where the ledger is; None: as the environment says.

    Raises:
        PermanentError: a name is no checkpoint's, both are the same one's, or the home holds no data.
    """
    settings = settings or load_settings()
    with reading(settings) as conn:
        return compare_kept(conn, *find_pair(conn, first, second, settings.model_name))


def find_pair(conn: Connection, first: str, second: str, chain: str) -> tuple[Checkpoint, Checkpoint]:
    """The two checkpoints of these names.

    Raises:
        PermanentError: a name is no checkpoint's, or both are the same one's.
    """
    pair = lineage.find(conn, first, chain), lineage.find(conn, second, chain)
    if pair[0].id == pair[1].id:
        raise PermanentError(f"{first} and {second} are the same policy; name two policies to compare")
    return pair


def compare_kept(conn: Connection, first: Checkpoint, second: Checkpoint) -> ComparedPolicies:
    """The comparison of two checkpoints from the evaluations that the ledger has of both; nobody is asked anything."""
    pairs = evaluations.of_both(conn, first.id, second.id)
    asked = next((pair for pair in pairs if pair[0].evaluation == RECORDED_PROMPTS), None)
    answers = [_answers(evaluation) for evaluation in asked] if asked else [{}, {}]
    kinds = _kinds(conn, answers[0]) if asked else {}
    prompts = [] if asked is None else _prompts(asked, answers[0], answers[1], kinds)
    # An off-policy estimate has neither an interval nor cases, and so no difference.
    measured = [_measured(ours, theirs) for ours, theirs in pairs if ours.evaluation != OFF_POLICY]
    return ComparedPolicies(
        first=policy_name(first.chain, first.step),
        second=policy_name(second.chain, second.step),
        measured=[row for row in measured if row.difference is not None or None not in (row.first, row.second)],
        prompts=len(prompts),
        kinds=compare_kinds(answers[0], answers[1], kinds),
        differing=rank_differing(prompts),
    )


def measure_both(
    settings: Settings,
    database: Database,
    first: Checkpoint,
    second: Checkpoint,
    prompts: int,
    heard: Callable[[str, int, int], None] = lambda *_: None,
) -> str:
    """Ask both checkpoints the same recorded prompts, unless the ledger has them on the same; why not, else empty.

    What is measured is kept. It runs the policies: on this machine, or by their backend.

    Args:
        heard: called while a policy is asked with its name, how many prompts it has answered, and of how many.
    """
    from babylon_assets.domain.prompt_evaluation import choose_prompts
    from babylon_assets.environments.registry import open_environment
    from babylon_assets.evaluation.loaded_policies import why_not_loadable
    from babylon_assets.evaluation.measurements import LAST_WINDOW, measure_prompts
    from babylon_assets.evaluation.recorded_prompts import WINDOWS
    from babylon_assets.ledger.recorded_prompts import list_prompts

    if open_environment(settings).answers is None:
        return "this environment cannot say what an answer to a recorded prompt would have been worth"
    with database.connect() as conn:
        both = evaluations.of_both(conn, first.id, second.id)
        if any(pair[0].evaluation == RECORDED_PROMPTS and pair[0].results.get("texts") for pair in both):
            return ""
        places = choose_prompts(list_prompts(conn, LAST_WINDOW, WINDOWS), prompts)
    if not places:
        return "there is no recorded prompt yet; materialize training_datasets for a window first"
    for checkpoint in (first, second):
        if (reason := why_not_loadable(settings, checkpoint)) is not None:
            return f"{policy_name(checkpoint.chain, checkpoint.step)} cannot be asked here: {reason}"
    for checkpoint in (first, second):
        name = policy_name(checkpoint.chain, checkpoint.step)
        if measure_prompts(settings, database, checkpoint, places, compared=True, heard=partial(heard, name)) is None:
            raise PermanentError(f"{name} could not be measured; try again")
    return ""


def _answers(evaluation: Evaluation) -> dict[str, PromptAnswer]:
    """The answers that an evaluation keeps, by the prompts' ids."""
    return {name: PromptAnswer(*values) for name, values in evaluation.results["answers"].items()}


def _measured(ours: Evaluation, theirs: Evaluation) -> MeasuredTwice:
    shares = (_number(ours.results.get("valid_share")), _number(theirs.results.get("valid_share")))
    difference: Interval | None = None
    if ours.evaluation == RECORDED_PROMPTS:
        difference, shares = compare_prompts(_answers(ours), _answers(theirs))
    else:
        first, second = ours.results.get("rewards"), theirs.results.get("rewards")
        if isinstance(first, list) and isinstance(second, list) and len(first) == len(second) > 0:
            difference = paired(second, first)
    return MeasuredTwice(ours.evaluation, ours.window_id, _interval(ours), _interval(theirs), difference, shares)


def _interval(evaluation: Evaluation) -> Interval | None:
    if evaluation.value is None:
        return None
    low, high = evaluation.low, evaluation.high
    return Interval(evaluation.value, float("nan") if low is None else low, float("nan") if high is None else high)


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _kinds(conn: Connection, answers: Mapping[str, PromptAnswer]) -> dict[str, str]:
    """What the record's own agent did at each prompt; without those whose step is damaged or not kept."""
    places = {name: name.rsplit("/", 2) for name in answers}
    facts = read_steps_of(conn, (trajectory for trajectory, _, _ in places.values()))
    kinds = {name: facts.get((trajectory, int(step))) for name, (trajectory, step, _) in places.items()}
    return {name: fact.action_type for name, fact in kinds.items() if fact is not None}


def _prompts(
    asked: tuple[Evaluation, Evaluation],
    first: Mapping[str, PromptAnswer],
    second: Mapping[str, PromptAnswer],
    kinds: Mapping[str, str],
) -> list[PromptTwice]:
    kept = [evaluation.results.get("texts") or {} for evaluation in asked]
    rows = []
    for name in sorted(set(first) & set(second)):
        (action, text), (other_action, other_text) = (texts.get(name) or ("", "") for texts in kept)
        twice = PromptTwice(
            prompt=name,
            kind=kinds.get(name, ""),
            first=first[name],
            second=second[name],
            actions=(action, other_action),
            texts=(text, other_text),
        )
        rows.append(twice)
    return rows
