"""A checkpoint's model card: the `README.md` in its folder, made from what the ledger has of it.

It says what does not change any more, and the evaluations that there are by then: the same ledger gives the same bytes.
The card is no part of what a checkpoint's ids are hashes of. Which policy is served changes, and is not said.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from typing import Any

from psycopg import Connection

from babylon_assets.domain.checkpoint_states import PASSED, REJECTED
from babylon_assets.domain.display_text import format_number, format_scorers, is_number, neutralize_line
from babylon_assets.domain.evaluation_words import describe_windows
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.token_counts import TOKEN_COUNTS, explain_early_end, format_trainable
from babylon_assets.domain.verdict_table import explain_absent, explain_decision, verdict_cells
from babylon_assets.ledger import evaluations, lineage, verdicts
from babylon_assets.ledger.adapter_weights import WEIGHTS
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.dataset_counts import read_counts

CARD = "README.md"
#: What a cell without a value holds.
_NONE = "-"
#: A bracket that could begin a link or a picture; that of an interval, such as [-0.037, +0.012], cannot.
_LINK_BEGIN = re.compile(r"\[(?![-+.,\d ]+\](?![\[(]))")
#: Ancestors that are named one by one.
_MOST_ANCESTORS = 12
#: Characters that are read of a card: far more than the longest has.
_LONGEST = 1_000_000
#: The hash that ends the name of a base model's folder in the home.
_MADE_FOR = re.compile(r"-[0-9a-f]{12}$")
_log = logging.getLogger(__name__)


def write_card(conn: Connection[Any], checkpoint: Checkpoint) -> Path | None:
    """Write the card of a checkpoint whose weights lie in a folder here; None for any other.

    A folder that cannot be written to costs the card and nothing else: a warning is logged.
    """
    folder = Path(checkpoint.path)
    if not checkpoint.path or not (folder / WEIGHTS).is_file():
        return None
    aside = folder / f".{CARD}.{os.getpid()}"
    try:
        aside.write_text(render_card(conn, checkpoint), encoding="utf-8")
        aside.replace(folder / CARD)
    except OSError as error:
        _log.warning("the model card of %s was not written: %s", folder, error.strerror)
        return None
    return folder / CARD


def find_card(checkpoint: Checkpoint) -> Path | None:
    """The card in the folder of a checkpoint's weights; None where there is none, or it leads to another file."""
    card = Path(checkpoint.path) / CARD
    with suppress(OSError):  # a folder that may not be looked into, or whose name is too long
        if checkpoint.path and card.is_file() and not card.is_symlink():
            return card
    return None


def read_card(checkpoint: Checkpoint) -> str | None:
    """The card's text without its front matter, which is for machines; None where there is none."""
    card = find_card(checkpoint)
    if card is None:
        return None
    with card.open(encoding="utf-8", errors="replace") as file:
        text = file.read(_LONGEST)
    _, end, body = text.partition("\n---\n")
    return body if end and text.startswith("---\n") else text


def render_card(conn: Connection[Any], checkpoint: Checkpoint) -> str:
    """The card as Markdown."""
    name = policy_name(checkpoint.chain, checkpoint.step)
    line = lineage.ancestors(conn, checkpoint)
    parts = [
        _front_matter(checkpoint),
        f"# {name}\n\n{_summary(checkpoint, line)}",
        _section("What it was trained on", _facts(_dataset(conn, checkpoint))),
        _section("How it was trained", _paragraphs(_facts(_training(checkpoint)), _early_end(checkpoint))),
        _section("What was measured", _measured(conn, checkpoint)),
        _section("What the gate says", _verdict(conn, checkpoint)),
        _section("Where it comes from", _origin(checkpoint, line)),
        _section("How to use it", _USE.format(name=name)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_USE = """Ask for it by its name at the gateway, which `babylon serve` starts: the `model` is `{name}`. `babylon chains`
says whether it is the policy that is served now. The folder is an adapter in peft's format and loads with
`peft.PeftModel`."""


def _front_matter(checkpoint: Checkpoint) -> str:
    base = _base_name(checkpoint)
    lines = ["---", f"base_model: {base}", "library_name: peft", "pipeline_tag: text-generation", "tags:"]
    return "\n".join([*lines, "- lora", "- reinforcement-learning", "---"])


def _base_name(checkpoint: Checkpoint) -> str:
    """The base model without the folders of this machine, and without the hash of a folder that was made for it."""
    path = Path(checkpoint.base_model)
    own = _MADE_FOR.sub("", path.name) if path.parent.name == "base_models" else path.name
    return neutralize_line(own if path.is_absolute() else checkpoint.base_model)


def _summary(checkpoint: Checkpoint, line: list[Checkpoint]) -> str:
    begun = f"A LoRA adapter for {_code(_base_name(checkpoint))}"
    if not line:
        return f"{begun}."
    parent = policy_name(line[0].chain, line[0].step)
    return f"{begun}, trained from {_code(parent)} on the answers of the window {_code(checkpoint.window_id or '')}."


def _dataset(conn: Connection[Any], checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    dataset = read_counts(conn, checkpoint.dataset_id)
    if dataset is None:
        return
    counts = dataset.counts
    yield "window", _code(checkpoint.window_id or "")
    yield "dataset", _code(checkpoint.dataset_id or "")
    yield "samples", f"{dataset.samples:,}"
    yield "trainable tokens", format_trainable(dataset.tokens, counts)
    for kind in sorted(counts):
        if kind in ("policy_gradient", "recompute", "sft") or kind.startswith("skip: "):
            yield _text(kind.replace("_", " ")), f"{counts[kind]:,}"
    yield "scorers", _text(format_scorers(lineage.scorers(conn, checkpoint)))
    for window, count in lineage.windows_of(conn, checkpoint).items():
        yield f"late samples of {_text(window)}", f"{count:,}"


def _training(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    yield "backend", _code(checkpoint.backend)
    if "seed" not in checkpoint.settings:
        yield "seed", str(checkpoint.seed)
    yield "made", f"{checkpoint.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    for values in (checkpoint.settings, checkpoint.metrics, checkpoint.versions):
        for name in sorted(values):
            yield _text(name.replace("_", " ")), (_number if name in TOKEN_COUNTS else _value)(values[name])


def _early_end(checkpoint: Checkpoint) -> str:
    """Why its pass did not see all of its window; empty when it did."""
    why = explain_early_end(checkpoint.metrics)
    return f"{why[0].upper()}{why[1:]}." if why else ""


def _measured(conn: Connection[Any], checkpoint: Checkpoint) -> str:
    rows = [
        (
            _text(row.evaluation.replace("_", " ")),
            describe_windows(row.evaluation, row.window_id) or _NONE,
            _figure(row.value),
            _NONE if row.low is None or row.high is None else f"{_figure(row.low)} to {_figure(row.high)}",
            _figure(row.results.get("valid_share")),
        )
        for row in evaluations.of_checkpoint(conn, checkpoint.id)
    ]
    return _table(("evaluation", "window", "value", "interval", "valid share"), rows) if rows else "Nothing yet."


def _verdict(conn: Connection[Any], checkpoint: Checkpoint) -> str:
    verdict = verdicts.verdict_on(conn, checkpoint.id)
    if verdict is None:
        return "The gate gave no verdict yet."
    state = PASSED if verdict.passed else REJECTED
    sentence = f"{state.capitalize()}: {_text(explain_decision(verdict.why, verdict.verdict))}."
    rows = verdict_cells(verdict.verdict)
    table = _table(tuple(rows[0]), [tuple(map(_text, row.values())) for row in rows]) if rows else None
    absent = explain_absent(verdict.verdict)
    return _paragraphs(sentence, table or "", f"{absent[0].upper()}{absent[1:]}." if absent else "")


def _origin(checkpoint: Checkpoint, line: list[Checkpoint]) -> str:
    names = [_code(policy_name(row.chain, row.step)) for row in line]
    shown = " from ".join(names[:_MOST_ANCESTORS]) + (
        f", and {len(names) - _MOST_ANCESTORS} before" if names[_MOST_ANCESTORS:] else ""
    )
    facts = [("checkpoint", _code(checkpoint.id)), ("weights, sha256", _code(checkpoint.weights_sha256))]
    if line:
        facts += [("parent", _code(line[0].id)), ("trained from", shown)]
    return _facts(iter(facts))


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))


def _facts(pairs: Iterator[tuple[str, str]]) -> str:
    rows = [(name, shown) for name, shown in pairs if shown]
    return _table(("what", "value"), rows) if rows else ""


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _value(value: object) -> str:
    if is_number(value):
        return format_number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_text(str(name))} {_value(member)}" for name, member in sorted(value.items()))
    return _text(str(value))


def _number(value: object) -> str:
    return format_number(float(value)) if is_number(value) else ""


def _figure(value: object) -> str:
    """A number of a column: as many digits as the others."""
    return format_number(float(value), padded=True) if is_number(value) else _NONE


def _code(text: str) -> str:
    """A name as code, on one line; empty for none."""
    return f"`{neutralize_line(text).replace('`', chr(39)).replace('|', '/')}`" if text else ""


def _text(text: str) -> str:
    """A text of others, with nothing in it that Markdown or HTML would act on."""
    plain = neutralize_line(text).replace("\\", "\\\\")  # before the marks that get one
    for mark, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("`", "&#96;")):
        plain = plain.replace(mark, shown)
    return _LINK_BEGIN.sub(r"\\[", plain)
