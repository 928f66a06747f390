"""What tests of training share: windows with a frozen dataset."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from babylon_assets.domain.dataset_codec import dataset_id
from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.windows import upsert_window

Ready = Callable[[str, list[Sample]], Dataset]


@pytest.fixture
def ready(database: Database) -> Ready:
    """Give a window a dataset that is ready to be trained."""

    def make(window: str, samples: list[Sample]) -> Dataset:
        samples = [msgspec.structs.replace(each, window=window) for each in samples]
        dataset = Dataset(dataset_id(window, samples), window, samples, {})
        with database.connect() as conn:
            save_dataset(conn, dataset)
            upsert_window(conn, window, status="ready", dataset_id=dataset.id, samples=len(samples))
        return dataset

    return make
