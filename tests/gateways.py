"""A gateway in this process for tests: real HTTP on a free port, a real database, a small model, policies to serve."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import TransientError
from babylon_assets.ledger.adapter_weights import weights_sha256
from babylon_assets.ledger.checkpoints import ensure_root, insert_checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.inference_calls import InferenceCall, calls_by_id
from babylon_assets.ledger.promotions import promote
from babylon_assets.serving.answers import Source
from babylon_assets.serving.awaited_database import Ledger
from babylon_assets.serving.engine.engine import Library
from babylon_assets.serving.engine.scheduler import Scheduler
from babylon_assets.serving.http.accepted_request import Parts
from babylon_assets.serving.http.server import assemble, make_gateway, run, uvicorn_server
from tests.ledger.values import CHAIN, checkpoint, dataset, root, sample
from tests.servers import Server

MakeSource = Callable[[asyncio.AbstractEventLoop], Source]
WINDOWS = [f"2026-11-05T{hour:02d}:00" for hour in range(10, 20)]


class RunningGateway:
    """Serves until it is closed; a context manager, entered when a policy is served or it says why there is none."""

    def __init__(self, settings: Settings, database: Ledger, make_source: MakeSource) -> None:
        self._settings, self.database, self._make_source = settings, database, make_source
        self.gateway = make_gateway(settings.gateway)
        self._server = uvicorn_server(self.gateway)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/v1"
        self._thread = threading.Thread(target=self._serve)
        self._failure = ""

    @property
    def parts(self) -> Parts:
        assert self.gateway.parts is not None
        return self.gateway.parts

    def __enter__(self) -> RunningGateway:
        self._thread.start()
        wait_for(lambda: self.gateway.parts is not None and self._has_settled())
        return self

    def recorded(self, *ids: str) -> list[InferenceCall]:
        """The records of these calls, once they are in the database."""
        recorder = self.parts.recorder
        assert recorder is not None and recorder.flush(20)
        with self.database.connect_autocommit() as conn:
            calls = calls_by_id(conn, ids)
        return [calls[call_id] for call_id in ids]

    def failure(self, seconds: float) -> str:
        """Why it ended by itself, which it must within so long."""
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self._failure

    def _has_settled(self) -> bool:
        directory = self.parts.directory
        return directory.served is not None or len(directory.missing) > 1

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        settings, spool = self._settings, self._settings.home / "spool"
        make_parts = partial(assemble, self.gateway, settings.gateway, settings.model_name, self.database, spool)
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            try:
                runner.run(run(self.gateway, self._server, make_parts, self._make_source, self._socket))
            except TransientError as error:
                self._failure = str(error)


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Return when the condition holds; it must do so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def embedded(library: Library, settings: Settings) -> MakeSource:
    """The embedded engine as whoever answers."""
    return lambda loop: Scheduler(library, loop, width=settings.gateway.batch, queue=settings.gateway.queue, threads=1)


@pytest.fixture(scope="session")
def tiny_library(tiny_base: Path) -> Library:
    """The small model's policies; shared, because each gateway asks only for adapters of its own."""
    return Library(tiny_base, kept=4)


@pytest.fixture
def gateway_with(tmp_path: Path, database: Database, tiny_library: Library) -> Iterator[Callable[..., RunningGateway]]:
    """Start a gateway with these settings changed; all are stopped at the end of the test."""
    running: list[RunningGateway] = []

    def make(**changes: Any) -> RunningGateway:
        chosen = Settings(**{"home": tmp_path / "home", **changes})
        started = RunningGateway(chosen, database, embedded(tiny_library, chosen))
        running.append(started.__enter__())
        return started

    yield make
    for each in running:
        each.__exit__()


@pytest.fixture(scope="module")
def shared_gateway(
    tmp_path_factory: pytest.TempPathFactory, server: Server, migrated: str, tiny_library: Library
) -> Iterator[RunningGateway]:
    """One gateway, with a database of its own, for all tests of a module."""
    settings, name = Settings(home=tmp_path_factory.mktemp("shared")), server.create(migrated)
    with RunningGateway(settings, server.database(name), embedded(tiny_library, settings)) as running:
        yield running
    server.drop(name)


@dataclass
class Chain:
    """A chain of checkpoints whose weights differ clearly, in a database and on disk."""

    database: Database
    base: Path
    folder: Path

    def adapter(self, step: int) -> Path:
        return self.folder / f"{step:04d}"

    def add(self, step: int) -> None:
        """Make the checkpoint of a step, after those before it."""
        _write_adapter(self.base, self.adapter(step), step)
        window = WINDOWS[step]
        data = dataset(sample(step, window=window), window=window)
        with self.database.connect() as conn:
            ensure_root(conn, root())
            save_dataset(conn, data)
            place, digest = self.adapter(step), weights_sha256(self.adapter(step))
            insert_checkpoint(conn, checkpoint(step, window, data.id, path=str(place), weights_sha256=digest))

    def promote(self, step: int) -> None:
        with self.database.connect() as conn:
            data = checkpoint(step, WINDOWS[step], "any") if step else root()
            promote(conn, data, by="a test", why="it asks for it")

    def name(self, step: int) -> str:
        return f"{CHAIN}@{step}"


def _write_adapter(base: Path, folder: Path, seed: int) -> None:
    import torch

    from babylon_assets.training.adapters import load_trainable

    model = load_trainable(str(base), None, rank=4, seed=0, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=generator)
    model.save_pretrained(folder)


@pytest.fixture
def chain(database: Database, tiny_base: Path, tmp_path: Path) -> Chain:
    """A chain with nothing in it yet."""
    return Chain(database, tiny_base, tmp_path / "checkpoints")


def recomputed(base: Path, adapter: Path | None, prompt: list[int], answer: list[int]) -> list[float]:
    """Log-probabilities at temperature 1 of an answer's tokens by transformers' own forward pass."""
    import torch
    from transformers import AutoModelForCausalLM

    key = (base, adapter)
    if key not in _models:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
        _models[key] = model.eval()
    with torch.inference_mode():
        logits = _models[key](torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    picked = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).squeeze(1)
    values: list[float] = picked.tolist()
    return values


_models: dict[tuple[Path, Path | None], Any] = {}
