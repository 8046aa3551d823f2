"""What an engine is never asked."""

import pytest

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import read_fields
from mlx_gateway.protocols.anthropic_messages import Messages
from mlx_gateway.protocols.api import Api
from mlx_gateway.protocols.openai_chat import ChatCompletions, Completions
from mlx_gateway.protocols.openai_responses import Responses

BODIES: list[tuple[Api, bytes]] = [
    (ChatCompletions(), b'{"messages":[{"role":"user","content":"x"}],%s}'),
    (Completions(), b'{"prompt":"x",%s}'),
    (Messages(), b'{"max_tokens":9,"messages":[{"role":"user","content":"x"}],%s}'),
    (Responses(), b'{"input":"x",%s}'),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_p", b"-1"),  # the one that leaves vllm-mlx unable to answer anybody
        ("min_p", b"1.5"),
        ("top_p", b"-0.1"),
        ("top_p", b"2"),
        ("temperature", b"-1"),
        ("temperature", b"1e308"),
        ("temperature", b'"hot"'),
        ("temperature", b"true"),
        ("repetition_penalty", b"0"),
        ("repetition_penalty", b"-1"),
        ("presence_penalty", b"1e300"),
        ("top_k", b"-2"),
        ("xtc_threshold", b"0.6"),  # these two are for mlx-lm, whose thread they would end
        ("repetition_context_size", b"1000000000000000000000000000000"),
        ("timeout", b"0"),
    ],
)
@pytest.mark.parametrize(("api", "body"), BODIES)
def test_a_value_that_would_break_the_engine_for_everyone_is_refused(
    api: Api, body: bytes, name: str, value: bytes
) -> None:
    fields = read_fields(body % (b'"%s":%s' % (name.encode(), value)))

    with pytest.raises(ApiError, match=name) as caught:
        api.read(fields, sees_images=None)

    assert (caught.value.status, caught.value.param) == (400, name)


@pytest.mark.parametrize(
    "values",
    [
        b'"temperature":0,"top_p":1,"top_k":-1,"min_p":0',
        b'"temperature":2,"presence_penalty":-2,"frequency_penalty":2,"repetition_penalty":1.1',
        b'"temperature":null,"top_p":null',
    ],
)
@pytest.mark.parametrize(("api", "body"), BODIES)
def test_values_in_their_range_pass(api: Api, body: bytes, values: bytes) -> None:
    fields = read_fields(body % values)

    assert api.read(fields, sees_images=None).fields.raw("temperature") == fields.raw("temperature")
