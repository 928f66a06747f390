// OpenAI's own client for JavaScript, unchanged: `node openai_client.mjs FEATURE URL` asks the gateway at URL.
// It fails where an answer is not what the feature gives.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [feature, baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const question = "A yes 40";
const messages = [{ role: "user", content: question }];
const parameters = {
  type: "object",
  properties: { market: { enum: ["A", "B"] }, sure: { type: "boolean" } },
  required: ["market", "sure"],
  additionalProperties: false,
};
const look = { name: "look", description: "Looks a market up.", parameters };
const chat = { model: "gpt-4.1", messages, temperature: 0 };
const asked = { model: "gpt-4.1", input: question, temperature: 0 };

function checkArguments(text) {
  const { market, sure } = JSON.parse(text);
  assert.ok(["A", "B"].includes(market));
  assert.equal(typeof sure, "boolean");
}

const features = {
  async text() {
    const reply = await client.chat.completions.create({ ...chat, max_tokens: 8 });
    assert.ok(reply.choices[0].message.content);
    assert.ok((await client.completions.create({ model: "gpt-4.1", prompt: question, max_tokens: 8 })).choices[0].text);
    assert.ok((await client.responses.create({ ...asked, max_output_tokens: 8 })).output_text);
    assert.ok((await client.models.list()).data.length);
  },
  async stream() {
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...chat, max_tokens: 8, stream: true })) {
      text += chunk.choices[0].delta.content ?? "";
    }
    assert.ok(text);
    let said = "";
    for await (const event of await client.responses.create({ ...asked, max_output_tokens: 8, stream: true })) {
      if (event.type === "response.output_text.delta") said += event.delta;
    }
    assert.equal(said, text);
  },
  async tools() {
    const tools = [{ type: "function", function: look }];
    const given = { ...chat, tools, max_tokens: 200 };
    const reply = await client.chat.completions.create({ ...given, tool_choice: "required" });
    const [call] = reply.choices[0].message.tool_calls;
    checkArguments(call.function.arguments);
    const result = { role: "tool", tool_call_id: call.id, content: "yes 40" };
    const told = [...messages, reply.choices[0].message, result];
    assert.ok((await client.chat.completions.create({ ...given, messages: told, max_tokens: 8 })).choices.length);
    const stream = client.chat.completions.stream({ ...given, tool_choice: "required" });
    checkArguments((await stream.finalMessage()).tool_calls[0].function.arguments);
    const offered = [{ type: "function", ...look, strict: true }];
    const answer = { ...asked, tools: offered, tool_choice: "required", max_output_tokens: 200 };
    checkArguments((await client.responses.create(answer)).output[0].arguments);
  },
  async JSON() {
    const response_format = { type: "json_schema", json_schema: { name: "order", schema: parameters, strict: true } };
    const reply = await client.chat.completions.parse({ ...chat, response_format, max_completion_tokens: 200 });
    checkArguments(JSON.stringify(reply.choices[0].message.parsed));
  },
};

await features[feature]();
