"""Datasets of before: the training mode `sft` has another word in the content, so that ids stay what they were."""

from __future__ import annotations

from babylon_assets.domain import dataset_codec
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.samples import Dataset
from tests.ledger.values import WINDOW, sample


def of_mode(mode: str) -> Dataset:
    samples = [sample(0, trains_as=mode), sample(1)]
    return Dataset(dataset_codec.dataset_id(WINDOW, samples), WINDOW, samples, {})


def test_a_dataset_to_imitate_has_the_id_that_it_had() -> None:
    content = b"".join(dataset_codec.draft_of(of_mode("sft")).content)
    assert b'"imitate"' in content
    assert b'"sft"' not in content


def test_it_comes_back_in_the_word_of_today() -> None:
    dataset = of_mode("sft")
    assert dataset_codec.decode(dataset_codec.encode(dataset)) == dataset
    heads = dataset_codec.restore_heads(dataset.id, b"".join(dataset_codec.draft_of(dataset).content))
    assert heads == [dataset_codec.head_of(each) for each in dataset.samples]


def test_so_does_one_of_the_first_form() -> None:
    dataset = of_mode("sft")
    first = Dataset(dataset_codec.first_id(dataset), dataset.window, dataset.samples, {})
    stored = dataset_codec.encode(first)
    assert b'"trains_as":"imitate"' in stored
    assert dataset_codec.decode(stored) == first
    assert first.id != content_id([first.window, first.samples])
