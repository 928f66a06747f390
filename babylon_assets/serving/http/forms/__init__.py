"""The protocols that the gateway speaks, one module each; all are turned into one request and recorded the same way."""

from __future__ import annotations

from babylon_assets.serving.http.forms.anthropic_messages import AnthropicMessages
from babylon_assets.serving.http.forms.chat_completions import ChatCompletions
from babylon_assets.serving.http.forms.form import WireForm
from babylon_assets.serving.http.forms.openai_responses import OpenAIResponses
from babylon_assets.serving.http.forms.text_completions import TextCompletions

CHAT: WireForm = ChatCompletions()
#: By the path at which each is spoken.
FORMS: dict[str, WireForm] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": TextCompletions(),
    "/v1/responses": OpenAIResponses(),
    "/v1/messages": AnthropicMessages(),
}
