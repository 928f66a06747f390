"""A server that speaks the hosted service's protocol on loopback and trains for real, with faults on demand.

Jobs are trained by the embedded engine on a base model of the caller's choice, in the order in which they come.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from art import TrainableModel, Trajectory, TrajectoryGroup
from openai.types.chat.chat_completion import Choice
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from babylon_assets.domain.policies import Completion
from babylon_assets.domain.trajectories import Message
from babylon_assets.serving.engine.engine import Engine
from babylon_assets.training.backends.embedded.art_backend import ArtBackend
from babylon_assets.training.backends.embedded.trainer import TrainerSettings

KEY = "key-of-the-tests-0123456789"


@dataclass
class Job:
    """A training job: its events so far."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def say(self, kind: str, **data: Any) -> None:
        self.events.append({"id": f"event-{len(self.events):04d}", "type": kind, "data": data})


@dataclass
class HostedService:
    """The service's state; `faults` maps an operation to what is to go wrong the next time or times.

    Faults: `register`, `submit`, `events` and `chat` take status codes; `submit-lost` makes the job and answers 524;
    `events-dropped` breaks the connection in the middle of a page; `duplicates` sends each page twice over;
    `job-failed` ends the next job with that message; `slow` holds a job back for so many seconds.
    """

    base: Path
    home: Path
    url: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    faults: dict[str, list[Any]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    name: str = ""
    offers: list[str] | None = None
    engine: Engine | None = None
    answering: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, operation: str) -> Any:
        waiting = self.faults.get(operation)
        return waiting.pop(0) if waiting else None

    @property
    def steps(self) -> list[int]:
        folder = self.home / "project" / "models" / self.name / "checkpoints"
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []

    async def register(self, request: Request) -> Response:
        self.calls["register"] += 1
        if (status := self.fault("register")) is not None:
            return _error(status)
        body = await request.json()
        self.name = body["name"]
        names = {key: body[key] for key in ("project", "name", "base_model")}
        return JSONResponse({"id": "model-1", "entity": "team", "run_id": None, **names})

    async def models(self, request: Request) -> Response:
        """What may be trained, where the service says: `offers` is None where it has no such list."""
        self.calls["models"] += 1
        if self.offers is None or request.headers["authorization"] != f"Bearer {KEY}":
            return _error(404)
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in self.offers]})

    async def checkpoints(self, request: Request) -> Response:
        found = [{"id": f"checkpoint-{step}", "step": step, "metrics": {}} for step in self.steps]
        if request.query_params.get("order") == "desc":
            found.reverse()
        return JSONResponse({"data": found[: int(request.query_params.get("limit", "100"))], "has_more": False})

    async def submit(self, request: Request) -> Response:
        self.calls["submit"] += 1
        if (status := self.fault("submit")) is not None:
            return _error(status, f"bad request, said {request.headers['authorization']}")
        body = await request.json()
        self.bodies.append(body)
        name = f"job-{len(self.jobs) + 1}"
        self.jobs[name] = Job()
        delay, failure = self.fault("slow") or 0.0, self.fault("job-failed")
        threading.Thread(target=self._train, args=(self.jobs[name], body, delay, failure), daemon=True).start()
        return _error(524) if self.fault("submit-lost") else JSONResponse({"id": name})

    async def events(self, request: Request) -> Response:
        self.calls["events"] += 1
        if (status := self.fault("events")) is not None:
            return _error(status)
        job = self.jobs.get(request.path_params["job"])
        if job is None:
            return _error(404)
        after = request.query_params.get("after")
        page = [event for event in list(job.events) if after is None or event["id"] > after]
        if page and self.fault("events-dropped"):
            return StreamingResponse(_broken(), media_type="application/json")
        if page and self.fault("duplicates"):
            page = page + page
        return JSONResponse({"data": page, "has_more": False})

    async def chat(self, request: Request) -> Response:
        self.calls["chat"] += 1
        if (status := self.fault("chat")) is not None:
            return _error(status)
        body = await request.json()
        answer = await asyncio.to_thread(self._answer, body)
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}
        used = {"prompt_tokens": len(answer.prompt_token_ids), "completion_tokens": len(answer.token_ids)}
        usage = {**used, "total_tokens": sum(used.values())}
        named = {"id": f"chat-{self.calls['chat']}", "object": "chat.completion", "created": 0, "model": body["model"]}
        return JSONResponse({**named, "choices": [choice], "usage": usage})

    def _answer(self, body: dict[str, Any]) -> Completion:
        """By the checkpoint that the model's name says, such as `wandb-artifact:///team/project/name:step1`."""
        step = re.search(r":step(\d+)$", body["model"])
        with self.answering:
            self.engine = self.engine or Engine(self.base)
            folder = (
                self.home / "project" / "models" / self.name / "checkpoints" / f"{int(step[1]):04d}" if step else None
            )
            self.engine.activate(folder, body["model"])
            messages = [Message(each["role"], each["content"]) for each in body["messages"]]
            return self.engine.complete([messages], [body["seed"]], max_tokens=body["max_tokens"])[0]

    def _train(self, job: Job, body: dict[str, Any], delay: float, failure: str | None) -> None:
        time.sleep(delay)
        groups = [_group(group) for group in body["trajectory_groups"]]
        job.say("training_started", num_sequences=len(groups))
        if failure is not None:
            job.say("training_failed", error_message=failure)
            return
        config = body["experimental_config"]
        settings = TrainerSettings(learning_rate=config["learning_rate"], lora_rank=4, rows_per_step=2, max_kl=100)
        backend = ArtBackend(self.home, settings=settings, manifest={})
        model: Any = TrainableModel(name=self.name, project="project", base_model=str(self.base))
        asyncio.run(self._steps(backend, model, groups, job, config))
        job.say("training_ended")

    async def _steps(self, backend: Any, model: Any, groups: list[Any], job: Job, config: dict[str, Any]) -> None:
        from art.types import TrainConfig

        await backend.register(model)
        dev = {"epsilon": config["epsilon"], "ppo": config["ppo"], "scale_rewards": config["scale_rewards"]}
        dev["packed_sequence_length"] = 512
        train = TrainConfig(learning_rate=config["learning_rate"])
        async for step in backend._train_model(model, groups, train, dev):
            job.say("gradient_step", **{name: value for name, value in step.items() if isinstance(value, float)})


def _group(body: dict[str, Any]) -> TrajectoryGroup:
    """A group as it was sent; a choice comes back as one, so that its tokens are seen."""
    return TrajectoryGroup([_trajectory(one) for one in body["trajectories"]])


def _trajectory(body: dict[str, Any]) -> Trajectory:
    turns = [Choice.model_validate(turn) if "finish_reason" in turn else turn for turn in body["messages_and_choices"]]
    return Trajectory(messages_and_choices=turns, reward=body["reward"])


def _error(status: int, message: str = "a fault on demand") -> Response:
    return JSONResponse({"error": {"message": message}}, status_code=status)


async def _broken() -> Any:
    yield b'{"data": [{"id": "event-'
    raise ConnectionResetError


class _Locked:
    """Answers 401 to whoever has not got the key."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers") or [])
        if scope["type"] == "http" and headers.get(b"authorization") != f"Bearer {KEY}".encode():
            await _error(401, f"no such key: {headers.get(b'authorization')!r}")(scope, receive, send)
            return
        await self._app(scope, receive, send)


@contextmanager
def hosted_service(base: Path, home: Path) -> Iterator[HostedService]:
    """The service on a free port of loopback, until the end of the block."""
    service = HostedService(base, home)
    routes = [
        Route("/v1/models", service.models, methods=["GET"]),
        Route("/v1/preview/models", service.register, methods=["POST"]),
        Route("/v1/preview/models/{model}/checkpoints", service.checkpoints, methods=["GET"]),
        Route("/v1/preview/training-jobs", service.submit, methods=["POST"]),
        Route("/v1/preview/training-jobs/{job}/events", service.events, methods=["GET"]),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
    ]
    listener = socket.create_server(("127.0.0.1", 0))
    service.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    server = uvicorn.Server(uvicorn.Config(_Locked(Starlette(routes=routes)), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        shutil.rmtree(home, ignore_errors=True)
