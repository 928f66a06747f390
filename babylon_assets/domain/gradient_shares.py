"""How much of a window's gradient comes from one agent, one key or one decision point, and how that is bounded.

A sample's part of the gradient is the size of its advantage. Whoever gives more than its share has samples left out,
those that weigh most first, until it gives no more: so one agent, or whoever holds one key, does not decide what
everybody learns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from babylon_assets.domain.grouping import level_of
from babylon_assets.domain.samples import SampleHead
from babylon_assets.domain.sampling import hash_draw

#: Why a sample is left out.
OVER_SHARE = "more than its share of the window"
#: Trained samples that are left to whoever gave too much: an agent's only answer is not taken, a decision point keeps
#: two that can be compared.
_LEFT = {"agent": 1, "key": 1, "decision_point": 2}
_MOST_ROUNDS = 100
#: The key's name by sample id, of samples whose call was made with one.
Keys = Mapping[str, str]


def largest_shares(heads: Iterable[SampleHead], keys: Keys) -> dict[str, float]:
    """The largest part of the gradient that one agent, one key and one decision point give; keys only where known."""
    trained = [head for head in heads if head.trains_as != "skip"]
    largest: dict[str, float] = {}
    for kind, name_of in _kinds(keys).items():
        for several in _by_mode(trained):
            sums = _sums(several, name_of)
            total = sum(sums.values())
            named = [value for name, value in sums.items() if name is not None]
            if total and named:
                largest[kind] = max(largest.get(kind, 0.0), max(named) / total)
    return largest


def bound_shares(
    heads: Sequence[SampleHead],
    keys: Keys,
    share: float,
    leave_out: Callable[[SampleHead], None],
    compare: Callable[[], None],
) -> None:
    """Leave out samples until nobody gives more than a share of the gradient.

    The bound of an agent and of a decision point is `share`, or twice an even part where that is more; that of a key is
    `share`, or twice the part that its agents are of all.

    Args:
        leave_out: makes a sample one that is skipped.
        compare: gives the samples that are left their advantages.
    """
    for _ in range(_MOST_ROUNDS):
        surplus = [
            head
            for several in _by_mode([head for head in heads if head.trains_as != "skip"])
            for kind, name_of in _kinds(keys).items()
            for head in _surplus(several, kind, name_of, share)
        ]
        if not surplus:
            return
        for head in surplus:
            if head.trains_as != "skip":
                leave_out(head)
        compare()


def _kinds(keys: Keys) -> dict[str, Callable[[SampleHead], Hashable]]:
    return {
        "agent": lambda head: head.agent_id,
        "key": lambda head: keys.get(head.sample_id),
        "decision_point": _decision_point,
    }


def _decision_point(head: SampleHead) -> Hashable:
    """A sample's group, or its very step where nobody else was at its decision point."""
    return head.group if level_of(head.group) == "decision_point" else (head.trajectory_id, head.step)


def _by_mode(heads: Sequence[SampleHead]) -> list[list[SampleHead]]:
    """The samples that are trained together: answers of our own, answers to imitate."""
    imitated = [head for head in heads if head.trains_as == "sft"]
    return [[head for head in heads if head.trains_as != "sft"], imitated]


def _sums(heads: Iterable[SampleHead], name_of: Callable[[SampleHead], Hashable]) -> dict[Hashable, float]:
    sums: dict[Hashable, float] = defaultdict(float)
    for head in heads:
        sums[name_of(head)] += abs(head.advantage or 0.0)
    return sums


def _surplus(
    heads: Sequence[SampleHead], kind: str, name_of: Callable[[SampleHead], Hashable], share: float
) -> list[SampleHead]:
    """What is to be left out of those who give too much, as advantages are now."""
    sums, even = _sums(heads, name_of), _even_parts(heads, kind, name_of)
    total = sum(sums.values())
    bounds = {name: min(1.0, max(share, 2 * even[name])) for name in sums if name is not None}
    over = {name for name, bound in bounds.items() if sums[name] > bound * total * (1 + 1e-9)}
    surplus: list[SampleHead] = []
    for name in over:
        members = [head for head in heads if name_of(head) == name and head.advantage]
        members.sort(key=lambda head: (-abs(head.advantage or 0.0), hash_draw(head.sample_id)))
        excess = (sums[name] - bounds[name] * total) / (1 - bounds[name])
        for head in members[: len(members) - _LEFT[kind]]:
            if excess <= 0:
                break
            surplus.append(head)
            excess -= abs(head.advantage or 0.0)
    return surplus


def _even_parts(
    heads: Sequence[SampleHead], kind: str, name_of: Callable[[SampleHead], Hashable]
) -> dict[Hashable, float]:
    """The part that each would give if all gave alike; a key's is that of its agents."""
    members = {(name_of(head), head.agent_id if kind == "key" else None) for head in heads}
    counts = Counter(name for name, _ in members)
    return {name: count / len(members) for name, count in counts.items()}
