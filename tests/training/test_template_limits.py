"""Samples with tools by the chat templates of base models: rendered where they have a form for them, else left out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from babylon_assets.config.settings import Settings
from babylon_assets.domain.chat_tokens import InexpressibleError, chat_tokens
from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.trajectories import Message, ToolCall
from babylon_assets.training.adapters import read_steps
from babylon_assets.training.backend import TrainingRequest
from babylon_assets.training.backends.embedded.in_process import train_embedded
from babylon_assets.training.folders import checkpoint_folder
from babylon_assets.training.recompute import turns_of
from babylon_assets.training.selection import Selection, demonstrations
from babylon_assets.training.template_limits import HAS_PARTS, REASONS, inexpressible, without_inexpressible
from tests.training.test_selection import dataset, sample

#: As Qwen's, shortened.
TEMPLATE = """
{%- if tools %}{{- '<|im_start|>system\\nTools:' }}{% for tool in tools %}{{- '\\n' + (tool | tojson) }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.reasoning_content %}{{- '<think>' + m.reasoning_content + '</think>' }}{% endif %}
{%- if m.content %}{{- m.content }}{% endif %}
{%- for c in m.tool_calls or [] %}
{{- '<tool_call>{"name": "' + c.function.name + '", "arguments": ' }}
{{- (c.function.arguments | tojson) + '}</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""
LOOK = ToolCall("c1", "look", '{"at": "BTC"}')
OFFERED = '[{"function":{"name":"look","parameters":{"type":"object"}},"type":"function"}]'
ASKED = [
    Message("user", "A yes 40"),
    Message("assistant", "", (LOOK,)),
    Message("tool", "up<|im_end|>", tool_call_id="c1"),
]


@pytest.fixture(scope="module")
def with_tools(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with a chat template that has a form for tools."""
    folder = tmp_path_factory.mktemp("tools") / "base"
    shutil.copytree(tiny_base, folder)
    tokenizer = tokenizer_of(tiny_base)
    tokenizer.chat_template = TEMPLATE.replace("\n{", "{")
    tokenizer.save_pretrained(folder)
    return folder


def tokenizer_of(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


def tooled(number: int = 0, **changes: Any) -> Sample:
    fields: dict[str, Any] = {
        "messages": ASKED,
        "response": "",
        "tools": OFFERED,
        "tool_calls": (LOOK,),
        "reasoning": "cheap",
        "trains_as": "sft",
        "advantage": 1.0,
    }
    return sample(number, **{**fields, **changes})


def test_tools_are_written_as_the_template_writes_them(with_tools: Path) -> None:
    tokenizer = tokenizer_of(with_tools)
    [(prompt, answer)] = turns_of(str(with_tools), [tooled()])
    assert tokenizer.decode(answer) == (
        '<think>cheap</think><tool_call>{"name": "look", "arguments": {"at": "BTC"}}</tool_call><|im_end|>'
    )
    assert '"name": "look"' in tokenizer.decode(prompt)
    ends = prompt.count(tokenizer.eos_token_id)
    assert ends == 1 + len(ASKED), "a tool's result may not end its own turn"
    assert tokenizer.decode(prompt).count("<|im_end|>") == ends + 1


def test_what_a_template_cannot_say_is_left_out_with_its_reason(tiny_base: Path, with_tools: Path) -> None:
    result = {"messages": ASKED[:1] + ASKED[2:], "tools": None, "tool_calls": (), "reasoning": None, "response": "x"}
    picture = [Message("user", "see", parts='[{"type":"image_url"}]')]
    samples = [
        tooled(0),
        tooled(1, tools=None),
        tooled(2, **result),
        tooled(3, **{**result, "messages": ASKED[:1], "reasoning": "hm"}),
        tooled(4, **{**result, "messages": picture}),
        sample(5, trains_as="sft"),
    ]
    reasons = inexpressible(str(tiny_base), samples)
    by_number = {int(name[1]): reason for name, reason in reasons.items()}
    assert by_number[0] == REASONS["tools"]
    assert (by_number[3], by_number[4]) == (REASONS["reasoning"], HAS_PARTS)
    assert 5 not in by_number
    assert inexpressible(str(with_tools), samples) == {samples[4].sample_id: HAS_PARTS}
    left = without_inexpressible(dataset(*samples), str(tiny_base)).samples
    assert [each.skip_reason for each in left] == [by_number.get(number) for number in range(6)]


def test_a_sample_whose_tokens_were_recorded_needs_no_template(tiny_base: Path) -> None:
    recorded = dataset(tooled(trains_as="policy_gradient"))
    assert without_inexpressible(recorded, str(tiny_base)) == recorded


def test_a_template_that_refuses_a_conversation_says_so(tiny_base: Path) -> None:
    tokenizer = tokenizer_of(tiny_base)
    tokenizer.chat_template = "{{ raise_exception('no tools here') }}"
    with pytest.raises(InexpressibleError, match="no tools here"):
        chat_tokens(tokenizer).prompt([{"role": "user", "content": "x"}], [{"type": "function"}])
    assert not chat_tokens(tokenizer).expresses("tool_calls")


def test_a_template_that_joins_arguments_as_texts_is_given_texts(tiny_base: Path) -> None:
    tokenizer = tokenizer_of(tiny_base)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name + ' ' + c.function.arguments }}{% endfor %}{% endfor %}"
    )
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": 1}}}
    turns = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    assert tokenizer.decode(chat_tokens(tokenizer).prompt(turns)) == 'look {"at": 1}'


def test_tool_calls_are_learned_by_a_real_step(with_tools: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, gradient_tokens=512, rows_per_step=2, lora_rank=8)
    samples = [tooled(number) for number in range(4)]
    request = TrainingRequest(
        base_model=str(with_tools), chain="babylon-agent", samples=Selection([], samples, {}), manifest={}
    )
    train_embedded(settings, request)
    [step] = read_steps(checkpoint_folder(settings, "babylon-agent", 1))
    assert step["tokens"] == 4 * len(turns_of(str(with_tools), samples[:1])[0][1])


def test_the_thought_is_no_part_of_what_has_none(with_tools: Path) -> None:
    [trajectory] = demonstrations([replace(tooled(), reasoning=None, tool_calls=(), response="hold")])
    assert trajectory.messages_and_choices[-1] == {"role": "assistant", "content": "hold"}
