"""How a model calls tools is found in its chat template; prompts, forced calls and what is read are of that form."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from babylon_assets.domain.trajectories import Message, ToolCall
from babylon_assets.serving.answers import Question, Target
from babylon_assets.serving.engine.texts import ChatTokenizer
from babylon_assets.serving.offered_tools import OfferedTools
from babylon_assets.serving.tool_call_texts import read_calls

#: As Qwen3-Coder's, shortened.
TEMPLATE = """
{%- if tools %}<|im_start|>system
Tools:{% for tool in tools %}{{ '\\n<name>' + tool.function.name + '</name>' }}
{%- for name, field in tool.function.parameters.properties|items %}
{{- '\\n' + name + ' ' + (field | string) }}{% endfor %}
{%- endfor %}
<tool_call>
<function=example>
<parameter=example_1>
value_1
</parameter>
</function>
</tool_call><|im_end|>
{% endif %}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + (m.content or '') }}
{%- for call in m.tool_calls or [] %}{{ '\\n<tool_call>\\n<function=' + call.function.name + '>\\n' }}
{%- for name, value in call.function.arguments|items %}
{{- '<parameter=' + name + '>\\n' + (value | string) + '\\n</parameter>\\n' }}{% endfor %}
{{- '</function>\\n</tool_call>' }}{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "market": {"enum": ["A", 'B "x"']},
        "note": {"type": "string"},
        "order": {"$ref": "#/$defs/order"},
    },
    "required": ["market", "order"],
    "$defs": {"order": {"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"]}},
}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}]
CALL = """<tool_call>
<function=look>
<parameter=market>
B "x"
</parameter>
<parameter=note>
a < b

two lines
</parameter>
<parameter=order>
{"at": 7}
</parameter>
</function>
</tool_call>"""


def tokenizer_of(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


@pytest.fixture(scope="module")
def coder(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """The small model's tokenizer with a chat template that writes calls in XML."""
    folder = tmp_path_factory.mktemp("coder") / "base"
    shutil.copytree(tiny_base, folder)
    tokenizer = tokenizer_of(tiny_base)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return ChatTokenizer(folder)


def test_a_prompt_has_the_calls_as_the_template_writes_them(coder: ChatTokenizer) -> None:
    called = ToolCall("c1", "look", '{"market":"A","note":"a < b"}')
    asked = [Message("user", "?"), Message("assistant", "", (called,)), Message("tool", "up", tool_call_id="c1")]
    prompt = coder.text(coder.prompt(asked, TOOLS))
    assert "<name>look</name>" in prompt
    assert "<function=look>\n<parameter=market>\nA\n</parameter>\n<parameter=note>\na < b\n</parameter>" in prompt


@pytest.mark.parametrize(
    ("changed", "fits"),
    [
        (("", ""), True),
        (("<parameter=note>\na < b\n\ntwo lines\n</parameter>\n", ""), True),
        (('"at": 7', '"at": "x"'), False),
        (('B "x"', "C"), False),
        (("<parameter=market>", "<parameter=other>"), False),
    ],
)
def test_a_forced_call_follows_the_schema_and_is_read_again(
    coder: ChatTokenizer, tiny_base: Path, changed: tuple[str, str], fits: bool
) -> None:
    question = Question(Target("m@0", 0), [], [1], 10, 1.0, 1.0, (), None, tools=OfferedTools(TOOLS, "required"))
    (constraint,) = asyncio.run(coder.constrainer.constraints(question))
    text = CALL.replace(changed[0], changed[1])
    assert allows(constraint, [*tokenizer_of(tiny_base).encode(text, add_special_tokens=False), coder.end]) == fits
    if fits:
        (call,) = read_calls(text.removeprefix("<tool_call>").removesuffix("</tool_call>"), {"look": PARAMETERS})
        assert '"order":{"at":7}' in call.arguments and ('"a < b\\n\\ntwo lines"' in call.arguments) == (
            changed == ("", "")
        )


def allows(constraint: Any, tokens: list[int]) -> bool:
    """Whether these tokens may be sampled one after the other."""
    import torch

    for token in tokens:
        logits = torch.zeros(max(tokens) + 1000)
        constraint.next.result().apply(logits)
        if logits[token] != 0:
            return False
        constraint.accept(token)
    return True
