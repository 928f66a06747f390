"""The best and the worst answers of a window, for a person: a table, and what was asked and said in full.

Texts are bounded, because every materialization is kept: 10 samples are at most 24,000 characters. Settings that are
secret are blotted out, should an agent have come to know one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import dagster as dg

from babylon_assets.config.settings import HIDDEN
from babylon_assets.domain.chat_turns import answer_message, shown_text
from babylon_assets.domain.dataset_codec import with_texts
from babylon_assets.domain.display_text import format_number, neutralize
from babylon_assets.domain.samples import DatasetDraft, Sample, SampleHead, explain_use
from babylon_assets.domain.site_links import link_sample
from babylon_assets.environments.base import Environment
from babylon_assets.ledger import datasets, trajectories
from babylon_assets.ledger.database import Connection
from babylon_assets.orchestration.metadata import code, code_block, table

_S = TypeVar("_S", bound=Sample | SampleHead)
SHOWN = 5
#: Characters of a conversation, of an answer and of a cell that are shown.
LONGEST_PROMPT, LONGEST_ANSWER, LONGEST_CELL = 1800, 500, 100
#: Samples at either end of the rewards whose actions are compared.
LOOKED_AT = 200
#: A shorter secret would blot out words.
SHORTEST_SECRET = 6

#: What a step did, by trajectory and step.
Actions = Mapping[tuple[str, int], str]


def of_dataset(
    conn: Connection, dataset: DatasetDraft, secrets: Iterable[str], environment: Environment, source: Connection
) -> dict[str, dg.MetadataValue[Any]]:
    """Those of a dataset that is kept already; only the texts that are shown are read.

    Args:
        source: the environment's database, where names of markets are.
    """
    known = _by_reward(head for head in dataset.samples if head.window == dataset.window)
    ends = [*known[:LOOKED_AT], *known[LOOKED_AT:][-LOOKED_AT:]]
    facts = trajectories.read_facts(conn, dataset.window, sorted({head.trajectory_id for head in ends}))
    environment.look_up_names(source, facts.values())
    actions = {place: environment.describe_action(fact) for place, fact in facts.items()}
    best, worst = best_and_worst(ends, actions)
    sample_ids = {head.sample_id for head in (*best, *worst)}
    names = sorted({head.trajectory_id for head in (*best, *worst)})
    if not names:
        return {}
    chats = dict(datasets.stream_chats(conn, dataset.id, *names))
    read = with_texts([head for head in dataset.samples if head.trajectory_id in chats], chats.__getitem__)
    return example_metadata([sample for sample in read if sample.sample_id in sample_ids], actions, secrets)


def best_and_worst(samples: Iterable[_S], actions: Actions) -> tuple[list[_S], list[_S]]:
    """The samples with the highest rewards, best first, and those with the lowest, worst first.

    Of the same action at the same decision point one is shown, among the best or the worst.
    """
    known = _by_reward(samples)

    def key(sample: _S) -> tuple[str, str]:
        return sample.group, actions.get((sample.trajectory_id, sample.step), sample.sample_id)

    best_of = {key(sample): sample for sample in reversed(known)}
    unlike = [sample for sample in known if best_of[key(sample)] is sample]
    best = unlike[: min(SHOWN, (len(unlike) + 1) // 2)]
    taken = {key(sample) for sample in best}
    worst_of = {key(sample): sample for sample in known if key(sample) not in taken}
    worst = [sample for sample in reversed(known) if worst_of.get(key(sample)) is sample]
    return best, worst[:SHOWN]


def _by_reward(samples: Iterable[_S]) -> list[_S]:
    """Those whose reward is known, the highest first."""
    return sorted((s for s in samples if s.reward is not None), key=lambda s: (-(s.reward or 0.0), s.sample_id))


def example_metadata(
    samples: Sequence[Sample], actions: Actions, secrets: Iterable[str]
) -> dict[str, dg.MetadataValue[Any]]:
    """The table, and the texts as Markdown, which the UI opens on a click; nothing without a known reward.

    The table has no more columns than Dagster's page of 1,400 pixels shows beside the names: a wider one would cut
    every other text of the page as well. The texts name each sample and its agent, and lead to its page.
    """
    best, worst = best_and_worst(samples, actions)
    if not best:
        return {}
    hide = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]
    rows = [("best", sample) for sample in best] + [("worst", sample) for sample in worst]
    return {
        "best_and_worst": table([_row(which, sample, actions, hide) for which, sample in rows]),
        "samples_in_full": dg.MetadataValue.md("\n\n".join(_in_full(which, sample, hide) for which, sample in rows)),
    }


def _row(which: str, sample: Sample, actions: Actions, hide: Sequence[str]) -> dict[str, object]:
    return {
        "action": _cell(actions.get((sample.trajectory_id, sample.step), sample.response), hide),
        "which": which,
        "reward": sample.reward or 0.0,
        "advantage": sample.advantage,
        "trained as": explain_use(sample.trains_as, sample.skip_reason),
    }


def _in_full(which: str, sample: Sample, hide: Sequence[str]) -> str:
    prompt = "\n\n".join(f"{message.role}: {shown_text(message)}" for message in sample.messages)
    use = explain_use(sample.trains_as, sample.skip_reason)
    trained = "" if sample.skip_reason else "trained as "
    link = link_sample(sample.window, _without(sample.sample_id, hide))
    heading = f"### {which}, reward {format_number(sample.reward or 0.0, padded=True)} ([its page]({link}))"
    return "\n\n".join(
        [
            f"{heading}\n\n{code_block(_cell(sample.sample_id, hide))}",
            f"Agent {code(_cell(sample.agent_id, hide))}, {trained}{code(use)}.",
            f"Asked:\n\n{code_block(_bounded(_without(prompt, hide), LONGEST_PROMPT))}",
            f"Answered:\n\n{code_block(_bounded(_without(shown_text(answer_message(sample)), hide), LONGEST_ANSWER))}",
        ]
    )


def _cell(text: str, hide: Sequence[str]) -> str:
    return _bounded(" ".join(_without(text, hide).split()), LONGEST_CELL)


def _bounded(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[:longest]} … ({len(text) - longest:,} more characters)"


def _without(text: str, hide: Sequence[str]) -> str:
    """Secrets are blotted out before anything is cut, so that no part of one is left."""
    for secret in hide:
        text = text.replace(secret, HIDDEN)
    return neutralize(text)
