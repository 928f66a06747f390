"""What OpenAI's responses are made of: items of output, whole or as events of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from babylon_assets.domain.trajectories import ToolCall
from babylon_assets.serving.answers import Answer, Piece
from babylon_assets.serving.http.forms.form import ReplyContext
from babylon_assets.serving.http.protocol import ApiError

_NO_ANSWER = Answer("", "", None, None, None, None, 0, 0)


def response(context: ReplyContext, answer: Answer) -> dict[str, Any]:
    """A whole response."""
    incomplete = answer.finish_reason == "length"
    return {
        **_frame(context, "incomplete" if incomplete else "completed"),
        "incomplete_details": {"reason": "max_output_tokens"} if incomplete else None,
        "output": _output(context.id, answer),
        "usage": _usage(answer),
    }


def _frame(context: ReplyContext, status: str) -> dict[str, Any]:
    """What a response repeats of its request."""
    request = context.request
    tools = [
        {"type": "function", "strict": False, **tool["function"]} for tool in msgspec.to_builtins(request.tools or [])
    ]
    return {
        **{
            "id": context.id,
            "object": "response",
            "created_at": context.created,
            "status": status,
            "model": context.model,
        },
        **{"error": None, "incomplete_details": None, "instructions": None, "output": [], "usage": None},
        **{"temperature": request.temperature, "top_p": request.top_p, "max_output_tokens": request.max_tokens},
        **{"tools": tools, "tool_choice": "auto", "parallel_tool_calls": True, "metadata": request.metadata or {}},
        **{"previous_response_id": None, "store": False, "truncation": "disabled", "user": request.user},
        **{"reasoning": {"effort": None, "summary": None}, "text": {"format": {"type": "text"}}},
    }


def _output(call_id: str, answer: Answer) -> list[dict[str, Any]]:
    items = [_thought(call_id, answer.reasoning)] if answer.reasoning else []
    if answer.shown or not answer.tool_calls:
        items.append(_message(call_id, answer.shown))
    return items + [_call(call) for call in answer.tool_calls]


def _thought(call_id: str, text: str | None) -> dict[str, Any]:
    content = [] if text is None else [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": f"rs_{call_id}", "summary": [], "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _message(call_id: str, text: str | None) -> dict[str, Any]:
    item = {"type": "message", "id": f"msg_{call_id}", "role": "assistant"}
    return {
        **item,
        "status": "in_progress" if text is None else "completed",
        "content": [] if text is None else [_part(text)],
    }


def _call(call: ToolCall, *, begun: bool = False) -> dict[str, Any]:
    item = {"type": "function_call", "id": f"fc_{call.id}", "call_id": call.id, "name": call.name}
    return {**item, "arguments": "" if begun else call.arguments, "status": "in_progress" if begun else "completed"}


def _usage(answer: Answer) -> dict[str, Any]:
    prompt, completion = answer.prompt_tokens, answer.completion_tokens
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion, **details}


class ResponseEvents:
    """A streamed response: items one after the other, each begun, given in pieces and ended."""

    def __init__(self, context: ReplyContext) -> None:
        self._context = context
        self._number = 0
        self._index = -1
        self._open: str | None = None
        self._text = ""

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\ndata: ".encode() + msgspec.json.encode(body) + b"\n\n"

    def begin(self) -> Iterable[bytes]:
        frame = _frame(self._context, "in_progress")
        yield self._event("response.created", response=frame)
        yield self._event("response.in_progress", response=frame)

    def write(self, piece: Piece) -> Iterable[bytes]:
        if piece.reasoning:
            yield from self._in("reasoning")
            yield self._delta("reasoning_text", piece.reasoning)
        if piece.text:
            yield from self._in("message")
            yield self._delta("output_text", piece.text)
        for call in piece.tool_calls:
            yield from self._close()
            yield from self._whole_call(call)
        if piece.whole is not None:
            if self._index < 0:
                yield from self._in("message")
            yield from self._close()

    def _in(self, kind: str) -> Iterable[bytes]:
        """Be in an item of this kind: what is open is ended, where it is of another."""
        if self._open == kind:
            return
        yield from self._close()
        self._index, self._open, self._text = self._index + 1, kind, ""
        item = _message(self._context.id, None) if kind == "message" else _thought(self._context.id, None)
        yield self._event("response.output_item.added", output_index=self._index, item=item)
        if kind == "message":
            yield self._event("response.content_part.added", **self._place(item["id"]), part=_part(""))

    def _place(self, item_id: str) -> dict[str, Any]:
        return {"item_id": item_id, "output_index": self._index, "content_index": 0}

    def _item(self) -> dict[str, Any]:
        """What is open, with its text."""
        build = _message if self._open == "message" else _thought
        return build(self._context.id, self._text)

    def _delta(self, kind: str, text: str) -> bytes:
        self._text += text
        place = self._place(self._item()["id"])
        beside: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        return self._event(f"response.{kind}.delta", **place, delta=text, **beside)

    def _close(self) -> Iterable[bytes]:
        if self._open is None:
            return
        item = self._item()
        place = self._place(item["id"])
        if self._open == "message":
            yield self._event("response.output_text.done", **place, text=self._text, logprobs=[])
            yield self._event("response.content_part.done", **place, part=_part(self._text))
        else:
            yield self._event("response.reasoning_text.done", **place, text=self._text)
        yield self._event("response.output_item.done", output_index=self._index, item=item)
        self._open = None

    def _whole_call(self, call: ToolCall) -> Iterable[bytes]:
        self._index += 1
        item = _call(call)
        at = {"output_index": self._index}
        yield self._event("response.output_item.added", **at, item=_call(call, begun=True))
        yield self._event("response.function_call_arguments.delta", **at, item_id=item["id"], delta=call.arguments)
        done = {"item_id": item["id"], "name": call.name, "arguments": call.arguments}
        yield self._event("response.function_call_arguments.done", **at, **done)
        yield self._event("response.output_item.done", **at, item=item)

    def end(self, answers: Sequence[Answer]) -> Iterable[bytes]:
        whole = response(self._context, answers[0] if answers else _NO_ANSWER)
        yield self._event(f"response.{whole['status']}", response=whole)

    def fail(self, error: ApiError) -> Iterable[bytes]:
        failure = {"code": error.code or "server_error", "message": str(error)}
        yield self._event("response.failed", response={**_frame(self._context, "failed"), "error": failure})
