"""Held-out answers seen by a policy: the one that gave them, and one that is another."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file, save_file

from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.domain.sampling import HELD_OUT
from babylon_assets.evaluation.off_policy import held_out_samples, score_answers, version
from babylon_assets.training.adapters import WEIGHTS, load_trainable
from tests.ledger.values import dataset, sample
from tests.training.backends.test_embedded import answered


@pytest.fixture(scope="module")
def samples(taught_base: Path) -> list[Sample]:
    """Answers of the base model, half of them of held-out agents."""
    return [
        msgspec.structs.replace(one, trains_as="skip", skip_reason=HELD_OUT) if number % 4 < 2 else one
        for number, one in enumerate(answered(taught_base, groups=10, size=4))
    ]


@pytest.fixture(scope="module")
def another(taught_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that answers otherwise than the base."""
    import torch

    folder = tmp_path_factory.mktemp("another")
    load_trainable(str(taught_base), None, rank=4, seed=0, device=torch.device("cpu")).save_pretrained(folder)
    perturb(folder, 0.3)
    return folder


def perturb(folder: Path, size: float) -> None:
    """Add noise to every weight of an adapter."""
    import torch

    noise = torch.Generator().manual_seed(0)
    weights = load_file(folder / WEIGHTS)
    changed = {name: value + size * torch.randn(value.shape, generator=noise) for name, value in weights.items()}
    save_file(changed, folder / WEIGHTS)


def test_held_out_are_known_answers_of_our_own(samples: list[Sample]) -> None:
    changes: list[dict[str, Any]] = [{"reward": None}, {"policy_step": None}, {"skip_reason": "too old"}]
    others = [msgspec.structs.replace(samples[0], **change) for change in changes]
    kept = held_out_samples(dataset(*samples, *others))
    assert [one.sample_id for one in kept] == [one.sample_id for n, one in enumerate(samples) if n % 4 < 2]


def test_the_policy_that_answered_finds_what_was_recorded(taught_base: Path, samples: list[Sample]) -> None:
    kept = held_out_samples(dataset(*samples))
    found = score_answers(str(taught_base), None, kept, 16)
    assert found.answers == 20
    assert found.estimate.effective == pytest.approx(20, rel=1e-4)  # every weight is one
    assert found.estimate.value == pytest.approx(fmean(one.reward or 0.0 for one in kept), abs=1e-4)
    for group, gap in found.preferences.items():
        one, other = sorted((each for each in kept if each.group == group), key=lambda each: each.reward or 0.0)
        assert gap == pytest.approx(sum(other.logprobs or ()) - sum(one.logprobs or ()), abs=1e-4)
    assert len(found.preferences) >= 8


def test_texts_without_tokens_are_looked_at_and_not_weighted(taught_base: Path, samples: list[Sample]) -> None:
    kept = [msgspec.structs.replace(one, token_ids=None, logprobs=None) for one in held_out_samples(dataset(*samples))]
    found = score_answers(str(taught_base), None, kept, 1)
    exact = score_answers(str(taught_base), None, held_out_samples(dataset(*samples)), 1)
    assert found.preferences.keys() == exact.preferences.keys()
    assert found.estimate.value is None


def test_another_policy_is_estimated_only_on_enough(taught_base: Path, another: Path, samples: list[Sample]) -> None:
    kept = held_out_samples(dataset(*samples))
    found = score_answers(str(taught_base), another, kept, 1)
    assert 1 <= found.estimate.effective < 19
    assert found.estimate.value is None
    assert "of what it would answer is among the answers given" in (found.estimate.refused or "")
    refused = score_answers(str(taught_base), another, kept, 19)
    assert refused.estimate.value is None
    assert "19 are needed" in (refused.estimate.refused or "")
    base = score_answers(str(taught_base), None, kept, 1)
    assert base.estimate.value is not None
    assert found.preferences != pytest.approx(base.preferences)


def test_a_window_without_held_out_answers_says_so(taught_base: Path) -> None:
    found = score_answers(str(taught_base), None, [], 16)
    assert (found.answers, found.preferences) == (0, {})
    assert "no held-out answer" in (found.estimate.refused or "")
    assert version(dataset(), 16) != version(dataset(), 8)


def test_a_window_of_other_models_answers_is_looked_at_by_them() -> None:
    theirs = [
        msgspec.structs.replace(
            one, policy=None, policy_step=None, token_ids=None, logprobs=None, prompt_token_ids=None
        )
        for one in (sample(0), sample(1))
    ]
    kept = [msgspec.structs.replace(one, trains_as="skip", skip_reason=HELD_OUT, reward=0.5) for one in theirs]
    own = msgspec.structs.replace(sample(2), trains_as="skip", skip_reason=HELD_OUT, reward=0.5)
    assert held_out_samples(Dataset("d", "w", [*kept, sample(3)], {})) == kept
    assert held_out_samples(Dataset("d", "w", [*kept, own], {})) == [own]
