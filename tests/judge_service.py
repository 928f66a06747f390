"""A judge for tests: OpenAI's chat completions on a free port of loopback, asked by the real litellm and ART's ruler.

It scores each trajectory that it is shown by a rule over its text and answers in the JSON that the schema asks for. It
fails on demand. It stands in for a hosted model, and for nothing else.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "sk-judge-hunter2"


def length_rule(answer: str) -> float:
    """A longer answer is better."""
    return min(1.0, len(answer) / 100)


class JudgeService:
    """What it was asked, and how many times it still shows which fault."""

    def __init__(self, rule: Callable[[str], float]) -> None:
        self.url = ""
        self.rule = rule
        self.bodies: list[dict[str, Any]] = []
        self.faults: dict[str, Any] = defaultdict(int)
        self._lock = threading.Lock()

    def fail(self, kind: str, times: int = 1) -> None:
        """Show a fault this many times: 500, 429, 400, 404, garbage, missing, shuffled, high, slow."""
        self.faults[kind] = times

    def _fault(self, kind: str) -> bool:
        with self._lock:
            left = self.faults[kind]
            self.faults[kind] = max(0, left - 1)
            return bool(left)

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _error(401, f"no such key: {request.headers.get('authorization')}")
        with self._lock:
            self.bodies.append(body)
        for status in (500, 429, 400, 404):
            if self._fault(str(status)):
                return _error(status, f"a fault on demand for {request.headers['authorization']}")
        if self._fault("slow"):
            time.sleep(1.5)
        return JSONResponse(self._answer(body))

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        shown = re.findall(r'<trajectory id="(\d+)">\n(.*?)\n</trajectory>', body["messages"][-1]["content"], re.DOTALL)
        scores = [
            {"trajectory_id": number, "explanation": f"{len(text)} characters", "score": self.rule(answer_of(text))}
            for number, text in shown
        ]
        if self._fault("missing"):
            scores = scores[:-1]
        if self._fault("shuffled"):
            scores = scores[::-1]
        if self._fault("high"):
            scores[0]["score"] = 7.0
        content = '{"scores": [' if self._fault("garbage") else json.dumps({"scores": scores})
        return {
            "id": "judgment",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }


def answer_of(text: str) -> str:
    """The answer at the end of a trajectory as ART shows it."""
    return str(json.loads(text)[-1]["content"])


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status_code=status)


@contextmanager
def judge_service(rule: Callable[[str], float] = length_rule) -> Iterator[JudgeService]:
    """The judge on a free port of loopback, until the end of the block."""
    service = JudgeService(rule)
    listener = socket.create_server(("127.0.0.1", 0))
    service.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    app = Starlette(routes=[Route("/v1/chat/completions", service.complete, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
