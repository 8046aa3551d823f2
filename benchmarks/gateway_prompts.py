"""What do looking for lines that change each turn, and for what changed, cost of a long prompt?

    uv run python benchmarks/gateway_prompts.py [MB]

Prints milliseconds of CPU (the median of nine) for a conversation of 4 MB in 4,000 messages:
reading its JSON, as the gateway does for every request; and cleaning its head where nothing is to
be cleaned, where the head is, and where 2,000 messages of the system are; comparing a turn with
the one before it, among 128 conversations that are remembered.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from mlx_gateway.fields import Fields, read_fields
from mlx_gateway.prompts.conversations import MOST, Conversations
from mlx_gateway.prompts.segments import Prompt, read_prompt
from mlx_gateway.prompts.stable_head import with_stable_head

MESSAGES = 4_000
BILLING = "x-anthropic-billing-header: cc_version=2.1.100.7b4; cc_entrypoint=cli; cch=eb6c6;"
COUNTDOWN = "<total_tokens>14999436 tokens left</total_tokens>"


def conversation(megabytes: float, *, head: str = "", counts: bool = False) -> bytes:
    """A request of that length; `counts` makes each second message one of the system."""
    words = "some words of an agent's turn, " * round(megabytes * 2**20 / MESSAGES / 31)
    said: list[dict[str, Any]] = []
    for number in range(MESSAGES // 2):
        said.append({"role": "user", "content": f"{number} {words}"})
        more = f"{words}\n{COUNTDOWN}" if counts else words
        said.append({"role": "system" if counts else "assistant", "content": more})
    return json.dumps({"system": f"{head}\nBe brief.", "messages": said}).encode()


def cost_ms(work: Callable[[], object]) -> float:
    """The median CPU time of nine runs."""
    times: list[float] = []
    for _ in range(9):
        began = time.process_time()
        work()
        times.append((time.process_time() - began) * 1000)
    return round(statistics.median(times), 2)


def prompt_of(fields: Fields) -> Prompt:
    """Its parts, hashed as the gateway does it."""
    prompt = read_prompt(fields, b"a key of the benchmark alone....")
    assert prompt is not None
    return prompt


def main(arguments: list[str]) -> None:
    """Print the figures."""
    megabytes = float(arguments[0]) if arguments else 4.0
    plain = conversation(megabytes)
    found: dict[str, Callable[[], object]] = {"read_json": lambda: read_fields(plain)}
    for name, body in {
        "nothing_to_clean": plain,
        "head_to_clean": conversation(megabytes, head=BILLING),
        "messages_to_clean": conversation(megabytes, counts=True),
    }.items():
        fields: Fields = read_fields(body)
        found[name] = lambda fields=fields: with_stable_head(fields)
    known, whose, fields = Conversations(), ("tier", "key", "program"), read_fields(plain)
    for number in range(MOST):
        other = read_fields(conversation(0.1, head=f"Agent {number}."))
        known.compare(whose, prompt_of(other), None)
    known.compare(whose, prompt_of(fields), None)
    found["compare_turns"] = lambda: known.compare(whose, prompt_of(fields), None)
    print(json.dumps({"megabytes": megabytes, "ms": {k: cost_ms(v) for k, v in found.items()}}))


if __name__ == "__main__":
    main(sys.argv[1:])
