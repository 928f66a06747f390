"""The texts of a call in the game's record: what a policy was asked, with which tools, and what it answered."""

from __future__ import annotations

from babylon_assets.domain.chat_turns import UnreadableMessageError, read_message, read_tool_calls, read_tools
from babylon_assets.domain.trajectories import Exchange, Message
from babylon_assets.environments.babylon.steps import Call

NO_PROMPT, NO_ANSWER = "calls without a prompt", "calls without an answer"


def has_answer(call: Call) -> bool:
    """Whether a call has a text, an empty one included, or tool calls for an answer."""
    return call.response is not None or bool(call.tool_calls or call.tool_calls_of_wire or _answered_last(call))


def _answered_last(call: Call) -> bool:
    """Whether a conversation ends in tool calls, of which the call itself says nothing."""
    last = call.messages[-1] if call.messages else {}
    return last.get("role") == "assistant" and bool(last.get("tool_calls") or last.get("function_call"))


def read_exchange(call: Call) -> Exchange | str:
    """The texts of a call that has an answer, or why they are not known.

    The answer is no part of its own prompt: the last message of a conversation is left out of that where it is the
    answer, and is the answer where the call gives none.
    """
    try:
        messages = [read_message(message) for message in call.messages] if call.messages else _prompts(call)
        tool_calls, tools = read_tool_calls(call.tool_calls or call.tool_calls_of_wire), read_tools(call.tools)
    except UnreadableMessageError as error:
        return str(error)
    response = call.response or ""
    if messages and messages[-1].role == "assistant":
        last = messages[-1]
        if not response and not tool_calls and last.tool_calls:
            response, tool_calls = last.content, last.tool_calls
        if (last.content, last.tool_calls) == (response, tool_calls):
            messages.pop()
    if not messages:
        return NO_PROMPT
    return Exchange(messages, response, tools, tool_calls, _thought(call, response))


def _prompts(call: Call) -> list[Message]:
    prompts = (("system", call.system_prompt), ("user", call.user_prompt))
    return [Message(role, content) for role, content in prompts if content]


def _thought(call: Call, response: str) -> str | None:
    """The trace that the game took out of an answer; None where the answer still has it, or there is none."""
    trace = call.raw_reasoning_trace
    return trace if isinstance(trace, str) and trace.strip() and trace.strip() not in response else None
