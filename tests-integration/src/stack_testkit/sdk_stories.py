"""The stories of the libraries: one script each, which prints what it got as JSON.

A script reads MODEL, PROMPT and what `mlx-stack env` sets. `failed` is the name of the exception,
with `code` where the library has one.
"""

from collections.abc import Mapping

_PYTHON = '''
import json, os
MODEL, PROMPT = os.environ["MODEL"], os.environ["PROMPT"]
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"sunny in {city}"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
'''
_PYTHON_END = """
try:
    print(json.dumps({"said": answer()}))
except Exception as error:
    code = getattr(error, "code", None)
    print(json.dumps({"failed": type(error).__name__, "code": code, "message": str(error)}))
"""

_OPENAI = """
import openai
client = openai.OpenAI(max_retries=0)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
def answer():
    messages, said = [{"role": "user", "content": PROMPT}], ""
    while True:
        calls, text = {}, ""
        for chunk in client.chat.completions.create(
            model=MODEL, messages=messages, tools=TOOLS, stream=True, max_completion_tokens=200
        ):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    known = calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                    known["id"] += call.id or ""
                    known["name"] += call.function.name or ""
                    known["arguments"] += call.function.arguments or ""
        if not calls:
            return text
        made = [
            {
                "id": c["id"],
                "type": "function",
                "function": {"name": c["name"], "arguments": c["arguments"]},
            }
            for c in calls.values()
        ]
        messages.append({"role": "assistant", "content": text, "tool_calls": made})
        for c in calls.values():
            result = weather(**json.loads(c["arguments"]))
            messages.append({"role": "tool", "tool_call_id": c["id"], "content": result})
"""

_ANTHROPIC = """
import anthropic
client = anthropic.Anthropic(max_retries=0)
TOOLS = [{"name": "weather", "input_schema": PARAMETERS}]
def answer():
    messages = [{"role": "user", "content": PROMPT}]
    while True:
        with client.messages.stream(
            model=MODEL, messages=messages, tools=TOOLS, max_tokens=2000,
            thinking={"type": "enabled", "budget_tokens": 1024},
        ) as stream:
            got = stream.get_final_message()
        assert got.usage.input_tokens > 0, got.usage
        calls = [block for block in got.content if block.type == "tool_use"]
        if not calls:
            return "".join(block.text for block in got.content if block.type == "text")
        messages.append({"role": "assistant", "content": [b.model_dump() for b in got.content]})
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": weather(**call.input)}
            for call in calls
        ]
        messages.append({"role": "user", "content": results})
"""

_LANGCHAIN = """
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
def answer():
    model = ChatOpenAI(model=MODEL, max_retries=0).bind_tools([tool(weather)])
    messages = [HumanMessage(PROMPT)]
    while True:
        got = None
        for piece in model.stream(messages):
            got = piece if got is None else got + piece
        if not got.tool_calls:
            return got.content
        messages.append(got)
        for call in got.tool_calls:
            messages.append(ToolMessage(weather(**call["args"]), tool_call_id=call["id"]))
"""

_PYDANTIC_AI = """
import openai
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
def answer():
    provider = OpenAIProvider(openai_client=openai.AsyncOpenAI(max_retries=0))
    agent = Agent(OpenAIChatModel(MODEL, provider=provider), tools=[weather])
    return agent.run_sync(PROMPT).output
"""

_INSTRUCTOR = """
import instructor, openai
from pydantic import BaseModel
class City(BaseModel):
    city: str
def answer():
    client = instructor.from_openai(openai.OpenAI(max_retries=0), mode=instructor.Mode.TOOLS)
    messages = [{"role": "user", "content": PROMPT}]
    return client.create(model=MODEL, response_model=City, messages=messages, max_retries=0).city
"""

_NODE_END = """
answer().then(
  (said) => console.log(JSON.stringify({ said })),
  (error) => console.log(JSON.stringify({
    failed: error.constructor.name, code: error.code ?? null, message: error.message })),
);
"""
_NODE = """
const { MODEL, PROMPT } = process.env;
const weather = ({ city }) => `sunny in ${city}`;
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
"""

_OPENAI_NPM = """
import OpenAI from "openai";
const client = new OpenAI({ maxRetries: 0 });
async function answer() {
  const tools = [{ type: "function", function: { name: "weather", parameters } }];
  const messages = [{ role: "user", content: PROMPT }];
  for (;;) {
    const stream = client.chat.completions.stream({ model: MODEL, messages, tools });
    const { message } = (await stream.finalChatCompletion()).choices[0];
    if (!message.tool_calls?.length) return message.content;
    messages.push(message);
    for (const call of message.tool_calls) {
      const content = weather(JSON.parse(call.function.arguments));
      messages.push({ role: "tool", tool_call_id: call.id, content });
    }
  }
}
"""

_ANTHROPIC_NPM = """
import Anthropic from "@anthropic-ai/sdk";
const client = new Anthropic({ maxRetries: 0 });
async function answer() {
  const tools = [{ name: "weather", input_schema: parameters }];
  const messages = [{ role: "user", content: PROMPT }];
  for (;;) {
    const stream = client.messages.stream({ model: MODEL, max_tokens: 2000, messages, tools });
    const { content } = await stream.finalMessage();
    const calls = content.filter((block) => block.type === "tool_use");
    if (!calls.length) return content.map((block) => block.text ?? "").join("");
    messages.push({ role: "assistant", content });
    messages.push({ role: "user", content: calls.map((call) => (
      { type: "tool_result", tool_use_id: call.id, content: weather(call.input) })) });
  }
}
"""

SCRIPTS: Mapping[str, str] = {
    "openai": _PYTHON + _OPENAI + _PYTHON_END,
    "anthropic": _PYTHON + _ANTHROPIC + _PYTHON_END,
    "langchain": _PYTHON + _LANGCHAIN + _PYTHON_END,
    "pydantic-ai": _PYTHON + _PYDANTIC_AI + _PYTHON_END,
    "instructor": _PYTHON + _INSTRUCTOR + _PYTHON_END,
    "openai-npm": _NODE + _OPENAI_NPM + _NODE_END,
    "anthropic-npm": _NODE + _ANTHROPIC_NPM + _NODE_END,
}
