"""The real engines: installed as locked, and answering."""

import json
import subprocess

import httpx
import pytest

from mlx_stack.engines import embedded_model as embedded
from mlx_stack.engines.verify import verify

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_vllm_mlx_is_installed_as_the_lock_says(vllm_mlx_environment):
    verification = verify(vllm_mlx_environment)
    assert verification.problems == ()
    assert verification.packages > 90
    assert not any(vllm_mlx_environment.site_packages.glob("torch-*"))


def test_litellm_is_installed_as_the_lock_says(litellm_environment):
    verification = verify(litellm_environment)
    assert verification.problems == ()
    assert verification.packages > 100


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_embedded_model_knows_the_capital_of_france(serve, embedded_model, concurrency):
    url = serve(embedded_model, concurrency=concurrency)
    answer = httpx.post(
        f"{url}/v1/chat/completions",
        json={
            "model": embedded.NAME,
            "temperature": 0,
            "max_tokens": 16,
            "messages": [{"role": "user", "content": embedded.QUESTION}],
        },
        timeout=120,
    ).json()
    assert answer["choices"][0]["message"]["content"] == embedded.ANSWER
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_the_embedded_model_writes_digits_and_other_scripts_as_its_tokenizer_should(
    vllm_mlx_environment, embedded_model
):
    texts = ["Order 66 cost 1234.50 €", "naïve café — 東京", "  two  spaces\n\ttab", "<|im_end|>"]
    program = (
        "import json, sys; from transformers import AutoTokenizer as A; "
        "t = A.from_pretrained(sys.argv[1]); x = json.loads(sys.argv[2]); "
        "print(json.dumps([(t.encode(s), t.decode(t.encode(s))) for s in x]))"
    )
    output = subprocess.check_output(
        [vllm_mlx_environment.python, "-I", "-c", program, embedded_model, json.dumps(texts)],
        text=True,
    )
    encoded = json.loads(output)
    assert [decoded for _, decoded in encoded] == texts
    assert encoded[3][0] == [2]
