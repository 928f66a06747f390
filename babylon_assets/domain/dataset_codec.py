"""The canonical form of a dataset: the bytes that its id is the hash of, and the way back.

A dataset's content is the canonical JSON of [2, window, chats, samples]: the samples without their texts, and for each
trajectory the sha256 of its chat, which is the canonical JSON of its samples' texts in the order of step and call. So
the texts that a window keeps already are taken over as they are, unread, and the id still names every character.
Where the bytes are kept is decided by `store`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal, NamedTuple, TypeVar, cast

import msgspec
from msgspec import structs

from babylon_assets.domain.content_ids import canonical_json, content_id, content_sha256
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.samples import Dataset, DatasetDraft, Sample, SampleHead, SamplePlace, TrainsAs
from babylon_assets.domain.trajectories import Exchange, decode_chat, encode_chat, exchange_of

#: The training mode `sft` has this word in every form: the same samples have the same id for ever.
_SFT = "imitate"
#: Of the canonical form. The first one was the JSON of the whole, texts included; such a dataset can still be read.
FORM = 2
_SAMPLES_A_PART = 1000
_HEAD_FIELDS = SampleHead.__struct_fields__
_AGAIN = "Build it again from its window."
_C = TypeVar("_C", "_Content", "_Places")
_S = TypeVar("_S", Sample, SampleHead)


_StoredMode = Literal["policy_gradient", "recompute", "imitate", "skip"]


class _StoredHead(SampleHead, frozen=True, gc=False, array_like=True):
    trains_as: _StoredMode  # type: ignore[assignment]


class _StoredSample(Sample, frozen=True, gc=False):
    trains_as: _StoredMode  # type: ignore[assignment]


class _StoredDataset(msgspec.Struct, frozen=True, gc=False):
    """A dataset of the first form."""

    id: str
    window: str
    samples: list[_StoredSample]
    counts: dict[str, int]


class _Content(msgspec.Struct, frozen=True, gc=False, array_like=True):
    form: int
    window: str
    chats: list[tuple[str, str]]
    samples: list[_StoredHead]


class _Places(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The content of which only the first fields of each sample are looked at."""

    form: int
    window: str
    chats: list[tuple[str, str]]
    samples: list[SamplePlace]


#: Step and call of the answers of a trajectory, in the order of its texts.
Places = list[tuple[int, int]]


class Outline(NamedTuple):
    """What a dataset's id names of each trajectory: the sha256 of its chat, and which answers these texts are."""

    chats: dict[str, str]
    places: dict[str, Places]


class _Encoded(msgspec.Struct, frozen=True, gc=False):
    chats: dict[str, msgspec.Raw]
    content: msgspec.Raw
    counts: dict[str, int]
    id: str


_decode_content = msgspec.json.Decoder(_Content).decode
_decode_places = msgspec.json.Decoder(_Places).decode


def draft(
    window: str,
    samples: list[SampleHead],
    counts: Mapping[str, int],
    chats: Mapping[str, str],
    own_chats: Mapping[str, bytes],
) -> DatasetDraft:
    """The dataset of these samples with its content and its id."""
    known = dict(sorted(chats.items()))
    content = list(_content(window, known, samples))
    return DatasetDraft(
        id=content_sha256(content),
        window=window,
        samples=samples,
        counts=dict(counts),
        content=content,
        chats=known,
        own_chats=own_chats,
    )


def _content(window: str, chats: Mapping[str, str], samples: Sequence[SampleHead]) -> Iterable[bytes]:
    yield canonical_json([FORM, window, list(chats.items())])[:-1] + b",["
    for start in range(0, len(samples), _SAMPLES_A_PART):
        part = canonical_json([_stored(head) for head in samples[start : start + _SAMPLES_A_PART]])[1:-1]
        yield b"," + part if start else part
    yield b"]]"


def draft_of(dataset: Dataset) -> DatasetDraft:
    """A dataset without its texts, which are all among `own_chats`; its id is that of this form."""
    chats = chats_of(dataset.samples)
    hashes = {trajectory: sha256(chat).hexdigest() for trajectory, chat in chats.items()}
    return draft(dataset.window, [head_of(sample) for sample in dataset.samples], dataset.counts, hashes, chats)


def chats_of(samples: Sequence[Sample]) -> dict[str, bytes]:
    """The chat of each trajectory that the samples are of, by trajectory id."""
    texts = {trajectory: [exchange_of(samples[n]) for n in places] for trajectory, places in _places(samples).items()}
    return {trajectory: encode_chat(exchanges) for trajectory, exchanges in texts.items()}


def with_texts(heads: Sequence[SampleHead], chat_of: Callable[[str], bytes]) -> list[Sample]:
    """The samples with their texts, from the chat of each trajectory.

    Raises:
        CorruptLedger: a trajectory's chat has not as many texts as there are samples of it.
    """
    texts: dict[int, Exchange] = {}
    for trajectory, places in _places(heads).items():
        exchanges = decode_chat(chat_of(trajectory))
        if len(exchanges) != len(places):
            raise CorruptLedger(f"{len(exchanges)} texts of {trajectory} for {len(places)} samples. {_AGAIN}")
        texts |= zip(places, exchanges, strict=True)
    return [_sample(head, texts[number]) for number, head in enumerate(heads)]


def _places(samples: Sequence[Sample | SampleHead]) -> dict[str, list[int]]:
    """Where each trajectory's samples are among all, in the order of their texts."""
    places: dict[str, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        places[sample.trajectory_id].append(number)
    for numbers in places.values():
        numbers.sort(key=lambda number: (samples[number].step, samples[number].call))
    return places


def _stored(sample: _S) -> _S:
    """The sample with the word that its training mode has in the content."""
    return structs.replace(sample, trains_as=_SFT) if sample.trains_as == "sft" else sample


def _mode(stored: str) -> TrainsAs:
    return "sft" if stored == _SFT else cast(TrainsAs, stored)


def head_of(sample: Sample) -> SampleHead:
    """A sample without its texts."""
    return SampleHead(*(getattr(sample, name) for name in _HEAD_FIELDS))


def _sample(head: SampleHead, exchange: Exchange) -> Sample:
    fields: dict[str, Any] = {name: getattr(head, name) for name in _HEAD_FIELDS}
    fields["trains_as"] = _mode(head.trains_as)
    return Sample(**fields, **{name: getattr(exchange, name) for name in Exchange.__struct_fields__})


def dataset_id(window: str, samples: Sequence[Sample]) -> str:
    """The id of a dataset of these samples."""
    return draft_of(Dataset("", window, list(samples), {})).id


def encode(dataset: Dataset) -> bytes:
    """The dataset as canonical JSON, from which `decode` restores it exactly."""
    if dataset.id == first_id(dataset):
        return encode_first(dataset)
    drafted = draft_of(dataset)
    chats = {trajectory: msgspec.Raw(chat) for trajectory, chat in drafted.own_chats.items()}
    return canonical_json(_Encoded(chats, msgspec.Raw(b"".join(drafted.content)), dataset.counts, dataset.id))


def first_id(dataset: Dataset) -> str:
    """The id that the dataset has in the first form."""
    return content_id([dataset.window, [_stored(sample) for sample in dataset.samples]])


def encode_first(dataset: Dataset) -> bytes:
    """The dataset in the first form."""
    return canonical_json(structs.replace(dataset, samples=[_stored(sample) for sample in dataset.samples]))


def decode(content: bytes) -> Dataset:
    """Restore a dataset from `encode`.

    Raises:
        CorruptLedger: the bytes are no dataset, or are not the content that its id names.
    """
    try:
        if not content.startswith(b'{"chats":'):
            return _decode_first(content)
        encoded = msgspec.json.decode(content, type=_Encoded)
    except msgspec.MsgspecError as error:
        raise CorruptLedger(f"a dataset cannot be decoded: {error}. {_AGAIN}") from error
    return restore(
        encoded.id, bytes(encoded.content), encoded.counts, {name: bytes(c) for name, c in encoded.chats.items()}
    )


def restore(dataset_id: str, content: bytes, counts: dict[str, int], chats: Mapping[str, bytes]) -> Dataset:
    """A dataset from its id, its content and the chats that this names; of the first form, `content` is all of it.

    Raises:
        CorruptLedger: these are not what the id names.
    """
    try:
        if content.startswith(b"{"):
            return _decode_first(content)
        kept = _verified(_decode_content, dataset_id, content)
        if {trajectory: sha256(chat).hexdigest() for trajectory, chat in chats.items()} != dict(kept.chats):
            raise CorruptLedger(f"the texts of dataset {dataset_id} are not what its id names. {_AGAIN}")
        samples = with_texts(kept.samples, chats.__getitem__)
    except msgspec.MsgspecError as error:
        raise CorruptLedger(f"a dataset cannot be decoded: {error}. {_AGAIN}") from error
    return Dataset(dataset_id, kept.window, samples, counts)


def restore_heads(dataset_id: str, content: bytes) -> list[SampleHead]:
    """The samples of a dataset without their texts.

    Raises:
        CorruptLedger: the content is not what the id names.
    """
    stored = _verified(_decode_content, dataset_id, content).samples
    return [SampleHead(*structs.astuple(structs.replace(head, trains_as=_mode(head.trains_as)))) for head in stored]


def outline(dataset_id: str, content: bytes) -> Outline:
    """What a dataset consists of, its samples hardly looked at.

    Raises:
        CorruptLedger: the content is not what the id names.
    """
    kept = _verified(_decode_places, dataset_id, content)
    places: dict[str, Places] = defaultdict(list)
    for sample in kept.samples:
        places[sample.trajectory_id].append((sample.step, sample.call))
    return Outline(dict(kept.chats), {trajectory: sorted(steps) for trajectory, steps in places.items()})


def _verified(decode_it: Callable[[bytes], _C], dataset_id: str, content: bytes) -> _C:
    """The content, which is of the second form and has the id as its hash."""
    if content_sha256([content]) != dataset_id:
        raise CorruptLedger(f"the content of dataset {dataset_id} is not what its id names. {_AGAIN}")
    try:
        kept = decode_it(content)
    except msgspec.MsgspecError as error:
        raise CorruptLedger(f"a dataset cannot be decoded: {error}. {_AGAIN}") from error
    if kept.form != FORM:
        raise CorruptLedger(f"dataset {dataset_id} is of form {kept.form}, this version reads {FORM}. {_AGAIN}")
    return kept


def _decode_first(content: bytes) -> Dataset:
    stored = msgspec.json.decode(content, type=_StoredDataset)
    samples = [Sample(**{**structs.asdict(sample), "trains_as": _mode(sample.trains_as)}) for sample in stored.samples]
    dataset = Dataset(stored.id, stored.window, samples, stored.counts)
    if first_id(dataset) != dataset.id:
        raise CorruptLedger(f"the content of dataset {dataset.id} is not what its id names. {_AGAIN}")
    return dataset
