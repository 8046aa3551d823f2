"""`mlx-stack engines upgrade` to the real engines, which have to answer first."""

import pytest

from mlx_stack.engines import embedded_model
from stack_testkit.home import install_fake_engines
from stack_testkit.program import Program
from stack_testkit.schemas import differences

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def test_the_real_engines_answer_before_they_replace_those_in_use(program: Program) -> None:
    install_fake_engines(program.home)

    upgraded = program.run("engines", "upgrade", "--json", timeout_s=500)

    assert upgraded.code == 0, upgraded.err
    assert differences(upgraded.document, "engines-upgrade") == []
    health = upgraded.document["health"]
    assert health["model"] == embedded_model.NAME
    assert health["answer"].strip() == embedded_model.ANSWER
    before = {row["name"]: row["before"] for row in upgraded.document["engines"]}
    assert before == {"vllm-mlx": "0.0.0", "litellm": "0.0.0"}
    assert not program.home.models.exists(), "the embedded model was made for the question only"
    assert program.run("engines", "verify").code == 0

    installed = program.run("engines", "install", "--json")
    assert differences(installed.document, "engines-install") == []

    back = program.run("engines", "rollback", "--json")
    assert differences(back.document, "engines-rollback") == []
    assert {row["after"] for row in back.document["engines"]} == {"0.0.0"}
