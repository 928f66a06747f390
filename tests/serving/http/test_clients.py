"""Clients that nobody here wrote, unchanged: pointed at the gateway by its address, each does what it can.

The table in docs/serving.md has a row for each of them; a test compares it with what is tested here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest

from tests.gateways import RunningGateway

Try = Callable[[RunningGateway], None]
QUESTION = "A yes 40"
FEATURES = ("text", "stream", "tools", "JSON")
PARAMETERS = {
    "type": "object",
    "properties": {"market": {"enum": ["A", "B"]}, "sure": {"type": "boolean"}},
    "required": ["market", "sure"],
    "additionalProperties": False,
}
LOOK: dict[str, Any] = {"name": "look", "description": "Looks a market up.", "parameters": PARAMETERS}
TOOL: dict[str, Any] = {"type": "function", "function": LOOK}
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]
CLAUDE: dict[str, Any] = {"model": "claude-opus-4", "extra_body": {"temperature": 0}}
#: OpenAI's client for JavaScript, and where `.ci/run` puts it.
NPM, NPM_FOLDER = "openai (npm)", Path(__file__).parents[3] / "node_modules" / "openai"


class Order(pydantic.BaseModel):
    """An order that a model which has learned nothing can finish."""

    market: Literal["A", "B"]
    sure: bool


def check_arguments(text: str) -> None:
    Order.model_validate_json(text)


def openai_client(gateway: RunningGateway) -> Any:
    import openai

    return openai.OpenAI(base_url=gateway.url, api_key="any", max_retries=0)


def openai_text(gateway: RunningGateway) -> None:
    given: dict[str, Any] = {"model": "gpt-4.1", "temperature": 0}
    with openai_client(gateway) as client:
        assert client.chat.completions.create(**given, messages=ASKED, max_tokens=8).choices[0].message.content
        assert client.completions.create(**given, prompt=QUESTION, max_tokens=8).choices[0].text
        assert client.responses.create(**given, input=QUESTION, max_output_tokens=8).output_text
        assert client.models.list().data


def openai_stream(gateway: RunningGateway) -> None:
    with openai_client(gateway) as client:
        given: dict[str, Any] = {"model": "gpt-4.1", "max_tokens": 8, "temperature": 0, "stream": True}
        chunks = client.chat.completions.create(**given, messages=ASKED)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        asked: dict[str, Any] = {"model": "gpt-4.1", "input": QUESTION, "max_output_tokens": 8, "temperature": 0}
        events = client.responses.create(**asked, stream=True)
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta")
        chunks = client.completions.create(**given, prompt=QUESTION)
        assert "".join(chunk.choices[0].text for chunk in chunks)


def openai_tools(gateway: RunningGateway) -> None:
    with openai_client(gateway) as client:
        given: dict[str, Any] = {"model": "gpt-4.1", "messages": ASKED, "tools": [TOOL], "max_tokens": 200}
        (call,) = client.chat.completions.create(**given, tool_choice="required").choices[0].message.tool_calls
        check_arguments(call.function.arguments)
        result = {"role": "tool", "tool_call_id": call.id, "content": "yes 40"}
        told = [*ASKED, {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]}, result]
        assert client.chat.completions.create(**given | {"messages": told, "max_tokens": 8}).choices
        tools = [{"type": "function", **LOOK, "strict": True}]
        asked = {"model": "gpt-4.1", "input": QUESTION, "tools": tools, "tool_choice": "required"}
        with client.responses.stream(**asked, max_output_tokens=200) as stream:
            (item,) = stream.get_final_response().output
        check_arguments(item.arguments)


def openai_json(gateway: RunningGateway) -> None:
    with openai_client(gateway) as client:
        reply = client.chat.completions.parse(
            model="gpt-4.1", messages=ASKED, response_format=Order, max_completion_tokens=200
        )
        assert isinstance(reply.choices[0].message.parsed, Order)
        reply = client.responses.parse(model="gpt-4.1", input=QUESTION, text_format=Order, max_output_tokens=200)
        assert isinstance(reply.output_parsed, Order)


def ask_with_node(feature: str, gateway: RunningGateway) -> None:
    """A program of JavaScript, because that client is none of Python's."""
    program = str(Path(__file__).with_name("openai_client.mjs"))
    command = ["node", program, feature, gateway.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def litellm_asked(gateway: RunningGateway, **more: Any) -> Any:
    import litellm

    given = {"model": "openai/gpt-4.1", "messages": ASKED, "api_base": gateway.url, "api_key": "any"}
    return litellm.completion(**{**given, "max_tokens": 200, "temperature": 0, **more})


def litellm_text(gateway: RunningGateway) -> None:
    assert litellm_asked(gateway, max_tokens=8).choices[0].message.content


def litellm_stream(gateway: RunningGateway) -> None:
    chunks = litellm_asked(gateway, max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def litellm_tools(gateway: RunningGateway) -> None:
    reply = litellm_asked(gateway, tools=[TOOL], tool_choice="required")
    check_arguments(reply.choices[0].message.tool_calls[0].function.arguments)


def litellm_json(gateway: RunningGateway) -> None:
    check_arguments(litellm_asked(gateway, response_format=Order).choices[0].message.content)


def langchain_model(gateway: RunningGateway, most: int = 200) -> Any:
    from langchain_openai import ChatOpenAI

    given: dict[str, Any] = {"model": "gpt-4.1", "base_url": gateway.url, "api_key": "any", "temperature": 0}
    return ChatOpenAI(**given, max_completion_tokens=most, max_retries=0)


def langchain_text(gateway: RunningGateway) -> None:
    assert langchain_model(gateway, 8).invoke(QUESTION).content


def langchain_stream(gateway: RunningGateway) -> None:
    assert "".join(chunk.content for chunk in langchain_model(gateway, 8).stream(QUESTION))


def langchain_tools(gateway: RunningGateway) -> None:
    message = langchain_model(gateway).bind_tools([TOOL], tool_choice="required").invoke(QUESTION)
    assert Order(**message.tool_calls[0]["args"])


def langchain_json(gateway: RunningGateway) -> None:
    model = langchain_model(gateway).with_structured_output(Order, method="json_schema")
    assert isinstance(model.invoke(QUESTION), Order)


def pydantic_ai_agent(gateway: RunningGateway, **more: Any) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=gateway.url, api_key="any")
    settings: Any = {"max_tokens": 200, "temperature": 0}
    return Agent(OpenAIChatModel("gpt-4.1", provider=provider), model_settings=settings, **more)


def pydantic_ai_text(gateway: RunningGateway) -> None:
    assert pydantic_ai_agent(gateway).run_sync(QUESTION).output


def pydantic_ai_stream(gateway: RunningGateway) -> None:
    import asyncio

    async def streamed() -> str:
        async with pydantic_ai_agent(gateway).run_stream(QUESTION) as result:
            return "".join([text async for text in result.stream_text(delta=True)])

    assert asyncio.run(streamed())


def pydantic_ai_tools(gateway: RunningGateway) -> None:
    assert isinstance(pydantic_ai_agent(gateway, output_type=Order).run_sync(QUESTION).output, Order)


def pydantic_ai_json(gateway: RunningGateway) -> None:
    from pydantic_ai import NativeOutput

    assert isinstance(pydantic_ai_agent(gateway, output_type=NativeOutput(Order)).run_sync(QUESTION).output, Order)


def llm_answer(gateway: RunningGateway, *options: str) -> str:
    """Simon Willison's command, with the model in the file that its documentation names."""
    from click.testing import CliRunner
    from llm.cli import cli

    runner = CliRunner()
    with runner.isolated_filesystem():
        Path("extra-openai-models.yaml").write_text(
            f"- model_id: mine\n  model_name: gpt-4.1\n  api_base: {gateway.url}\n  supports_schema: true\n"
        )
        environment = {"LLM_USER_PATH": str(Path.cwd()), "OPENAI_API_KEY": "any"}
        limits = ["-o", "max_tokens", "200", "-o", "temperature", "0"]
        command = ["prompt", "-m", "mine", *limits, "--no-log", *options, QUESTION]
        result = runner.invoke(cli, command, env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def llm_text(gateway: RunningGateway) -> None:
    assert llm_answer(gateway, "--no-stream").strip()


def llm_stream(gateway: RunningGateway) -> None:
    assert llm_answer(gateway).strip()


def llm_json(gateway: RunningGateway) -> None:
    check_arguments(llm_answer(gateway, "--no-stream", "--schema", json.dumps(PARAMETERS)))


def anthropic_asked(gateway: RunningGateway, **more: Any) -> Any:
    import anthropic

    with anthropic.Anthropic(base_url=gateway.root, api_key="any", max_retries=0) as client:
        return client.messages.create(**{**CLAUDE, "messages": ASKED, "max_tokens": 200, **more})


def anthropic_text(gateway: RunningGateway) -> None:
    reply = anthropic_asked(gateway, system="Trade.", max_tokens=8)
    assert reply.content[0].text and reply.usage.input_tokens > 0


def anthropic_stream(gateway: RunningGateway) -> None:
    import anthropic

    with (
        anthropic.Anthropic(base_url=gateway.root, api_key="any", max_retries=0) as client,
        client.messages.stream(**CLAUDE, messages=ASKED, max_tokens=8) as stream,
    ):
        assert stream.get_final_text()


def anthropic_tools(gateway: RunningGateway) -> None:
    tool = {"name": "look", "description": "Looks a market up.", "input_schema": PARAMETERS}
    reply = anthropic_asked(gateway, tools=[tool], tool_choice={"type": "any"})
    (block,) = reply.content
    assert (reply.stop_reason, block.type) == ("tool_use", "tool_use") and Order(**block.input)
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "yes 40"}
    told = [*ASKED, {"role": "assistant", "content": [block.model_dump()]}, {"role": "user", "content": [result]}]
    assert anthropic_asked(gateway, messages=told, tools=[tool], max_tokens=8).content


#: By package: what each can do, and how that is tried.
CLIENTS: dict[str, dict[str, Try]] = {
    "openai": {"text": openai_text, "stream": openai_stream, "tools": openai_tools, "JSON": openai_json},
    NPM: {feature: partial(ask_with_node, feature) for feature in FEATURES},
    "litellm": {"text": litellm_text, "stream": litellm_stream, "tools": litellm_tools, "JSON": litellm_json},
    "langchain-openai": {
        **{"text": langchain_text, "stream": langchain_stream},
        **{"tools": langchain_tools, "JSON": langchain_json},
    },
    "pydantic-ai": {
        **{"text": pydantic_ai_text, "stream": pydantic_ai_stream},
        **{"tools": pydantic_ai_tools, "JSON": pydantic_ai_json},
    },
    "llm": {"text": llm_text, "stream": llm_stream, "JSON": llm_json},
    "anthropic": {"text": anthropic_text, "stream": anthropic_stream, "tools": anthropic_tools},
}


def require_installed(client: str) -> None:
    """Skip the test of a client that is not there."""
    if client != NPM:
        pytest.importorskip(client.replace("-", "_"), reason=f"{client} is not installed; it is in the extra `clients`")
    elif shutil.which("node") is None or not NPM_FOLDER.is_dir():
        pytest.skip("no openai for node: npm install --no-save openai")


TRIED = [(client, feature) for client, features in CLIENTS.items() for feature in features]


@pytest.mark.parametrize(("client", "feature"), TRIED)
@pytest.mark.filterwarnings("ignore")
def test_a_client_works_unchanged(
    shared_gateway: RunningGateway, client: str, feature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    require_installed(client)
    CLIENTS[client][feature](shared_gateway)


def table() -> str:
    """What docs/serving.md says of these clients."""
    rows = [f"| client | {' | '.join(FEATURES)} |", "|" + "---|" * (1 + len(FEATURES))]
    for client, features in CLIENTS.items():
        cells = ["yes" if feature in features else "" for feature in FEATURES]
        package, _, kind = client.partition(" ")
        rows.append(f"| `{package}`{kind and f' {kind}'} | {' | '.join(cells)} |")
    return "\n".join(rows)


def test_the_table_in_the_documentation_is_what_is_tried() -> None:
    assert table() in Path("docs/serving.md").read_text()
