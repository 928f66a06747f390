"""Tools in plain words, for chat templates that have no form for them: as Hermes was taught to read and write them.

https://github.com/NousResearch/Hermes-Function-Calling
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from babylon_assets.domain.trajectories import Message, ToolCall

_OFFER = """You may call these functions. Their signatures are within <tools></tools>:
<tools>
{tools}
</tools>
To call one, answer with a JSON object within <tool_call></tool_call>:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def spell_tools(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None) -> list[Message]:
    """A conversation in which the system's message offers the tools, and calls and results are texts.

    Args:
        tools: in OpenAI's form.
    """
    spelled: list[Message] = []
    for message in messages:
        text = _spelled(message)
        if message.role == "tool" and spelled and spelled[-1].role == "user":
            spelled[-1] = Message("user", f"{spelled[-1].content}\n{text}")
        else:
            spelled.append(Message("user" if message.role == "tool" else message.role, text))
    if not tools:
        return spelled
    offer = _OFFER.format(tools="\n".join(msgspec.json.encode(tool).decode() for tool in tools))
    if spelled and spelled[0].role == "system":
        return [Message("system", f"{spelled[0].content}\n\n{offer}"), *spelled[1:]]
    return [Message("system", offer), *spelled]


def _spelled(message: Message) -> str:
    if message.role == "tool":
        return f"<tool_response>\n{message.content}\n</tool_response>"
    return "\n".join([*filter(None, [message.content]), *map(_spelled_call, message.tool_calls)])


def _spelled_call(call: ToolCall) -> str:
    name = msgspec.json.encode(call.name).decode()
    return f'<tool_call>\n{{"name": {name}, "arguments": {call.arguments}}}\n</tool_call>'
