"""Log-probabilities over packed rows are those of each answer alone."""

from __future__ import annotations

import copy
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from babylon_assets.training import answer_head, logprobs
from babylon_assets.training.answer_head import AnswerHead
from babylon_assets.training.logprobs import packed_attention_mask, token_logprobs

PROMPT, ANSWERS = [5, 6, 7, 8], [[9, 10, 11], [12, 13], [14, 15, 16, 17]]


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)


def packed_row() -> dict[str, torch.Tensor]:
    """The prompt once, then every answer beside it, and two tokens of padding."""
    tokens, groups, parents, positions = list(PROMPT), [1] * 4, [1] * 4, list(range(4))
    for number, answer in enumerate(ANSWERS):
        tokens += answer
        groups += [10 + number] * len(answer)
        parents += [1] * len(answer)
        positions += range(4, 4 + len(answer))
    columns = {"tokens": [*tokens, 0, 0], "groups": [*groups, -1, -1], "parents": [*parents, -1, -1]}
    columns["positions"] = [*positions, 0, 0]
    return {name: torch.tensor([values]) for name, values in columns.items()}


def test_packed_answers_do_not_see_each_other(model: Any) -> None:
    row = packed_row()
    mask = packed_attention_mask(row["groups"], row["parents"])
    wanted = torch.zeros(row["tokens"].shape, dtype=torch.bool)
    starts = [4, 7, 9]
    for start, answer in zip(starts, ANSWERS, strict=True):
        wanted[0, start : start + len(answer) - 1] = True
    packed, _ = token_logprobs(model, row["tokens"], mask, row["positions"], wanted)
    for start, answer in zip(starts, ANSWERS, strict=True):
        alone = model(torch.tensor([PROMPT + answer])).logits.log_softmax(-1)[0]
        expected = [float(alone[3 + place, token].detach()) for place, token in enumerate(answer)][1:]
        found = packed[0, start : start + len(answer) - 1].tolist()
        assert found == pytest.approx(expected, abs=1e-4)


def test_padding_is_seen_by_nothing() -> None:
    row = packed_row()
    mask = packed_attention_mask(row["groups"], row["parents"])
    assert not mask[0, 0, :-2, -2:].any()


@pytest.mark.parametrize("head_is_trained", [False, True])
def test_chunks_change_nothing(model: Any, monkeypatch: pytest.MonkeyPatch, head_is_trained: bool) -> None:
    model.lm_head.weight.requires_grad_(head_is_trained)
    tokens = torch.arange(3, 63).reshape(2, 30)
    mask = torch.ones(30, 30, dtype=torch.bool).tril()[None, None].expand(2, 1, 30, 30)
    wanted = torch.rand(2, 30, generator=torch.Generator().manual_seed(0)) > 0.3
    positions = torch.arange(30).expand(2, 30)
    results = []
    for chunk in (7, 1000):
        monkeypatch.setattr(logprobs, "CHUNK", chunk)
        model.zero_grad()
        found, entropies = token_logprobs(model, tokens, mask, positions, wanted)
        found.sum().backward()  # type: ignore[no-untyped-call]
        results.append((found.detach(), entropies.detach(), model.model.layers[0].mlp.up_proj.weight.grad.clone()))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert (results[0][1] >= 0).all()


def test_logits_of_a_chunk_are_all_that_exists_at_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward: of the 60 positions asked for, never more than a chunk's logits are there."""
    monkeypatch.setattr(logprobs, "CHUNK", 8)
    model.lm_head.weight.requires_grad_(False)
    tokens = torch.arange(3, 63).reshape(2, 30)
    mask = torch.ones(30, 30, dtype=torch.bool).tril()[None, None].expand(2, 1, 30, 30)
    wanted = torch.ones(2, 30, dtype=torch.bool)
    alive: list[weakref.ref[torch.Tensor]] = []
    most: list[int] = []

    def made(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = torch.nn.functional.linear(hidden, weight)
        alive.append(weakref.ref(logits))
        most.append(sum(len(one) for ref in alive if (one := ref()) is not None))
        return logits

    monkeypatch.setattr(answer_head, "linear", made)
    found, _ = token_logprobs(model, tokens, mask, torch.arange(30).expand(2, 30), wanted)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert len(most) == 8  # eight chunks, none of which is computed again
    assert max(most) <= 8


def test_a_head_that_is_trained_has_its_gradient(model: Any) -> None:
    row, untied = packed_row(), copy.deepcopy(model)
    untied.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    mask, wanted = packed_attention_mask(row["groups"], row["parents"]), row["groups"] >= 10
    found, _ = token_logprobs(untied, row["tokens"], mask, row["positions"], wanted)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert untied.lm_head.weight.grad.abs().sum() > 0


def test_the_head_gives_what_autograd_gives() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden, weight = (torch.randn(shape, generator=generator).double() for shape in ((5, 4), (9, 4)))
    following, of_each = torch.tensor([0, 8, 3, 3, 5]), torch.randn(5, generator=generator)
    expected = torch.log_softmax(hidden.requires_grad_() @ weight.T, dim=-1)
    (expected[range(5), following] * of_each).sum().backward()  # type: ignore[no-untyped-call]
    like, hidden.grad = hidden.grad, None
    found, entropies = AnswerHead.apply(hidden, weight, following, 2)  # type: ignore[no-untyped-call]
    (found * of_each).sum().backward()
    torch.testing.assert_close(hidden.grad, like, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(entropies, -(expected.exp() * expected).sum(-1).float(), rtol=1e-6, atol=1e-6)
    assert not entropies.requires_grad


def test_fewer_positions_at_once_of_a_larger_vocabulary() -> None:
    assert [logprobs.chunk_size(vocabulary) for vocabulary in (420, 49_152, 262_144)] == [512, 85, 64]
