"""Which optional fields a request carries, and what is tried after a refusal."""

from mlx_bench.request import PLAIN, ChatRequest, Dialect, build_body, next_dialect


def test_a_request_asks_for_usage_and_the_whole_length() -> None:
    body = build_body(Dialect(), "m", ChatRequest("hi", 9, seed=4))
    assert body["stream_options"] == {"include_usage": True}
    assert (body["max_tokens"], body["ignore_eos"], body["seed"]) == (9, True, 4)


def test_extra_fields_are_sent_along() -> None:
    body = build_body(PLAIN, "m", ChatRequest("hi", 9, extra={"enable_thinking": False}))
    assert body["enable_thinking"] is False
    assert "stream_options" not in body


def test_a_named_field_is_dropped_and_the_others_stay() -> None:
    dialect = next_dialect(Dialect(), 400, "Unknown field: ignore_eos")
    assert dialect == Dialect(ignore_eos=False)


def test_the_newer_name_of_the_limit_is_taken_up() -> None:
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    dialect = next_dialect(Dialect(), 400, message)
    assert dialect is not None
    assert "max_completion_tokens" in build_body(dialect, "m", ChatRequest("hi", 9))


def test_a_refusal_without_a_name_drops_everything_optional_once() -> None:
    assert next_dialect(Dialect(), 422, "bad request") == PLAIN
    assert next_dialect(PLAIN, 422, "bad request") is None


def test_other_statuses_are_not_about_fields() -> None:
    assert next_dialect(Dialect(), 500, "stream_options") is None
    assert next_dialect(Dialect(), None, "") is None


def test_every_dialect_ends_somewhere() -> None:
    dialect: Dialect | None = Dialect()
    tried = 0
    body = "max_completion_tokens stream_options ignore_eos seed temperature"
    while dialect is not None:
        dialect = next_dialect(dialect, 400, body)
        tried += 1
    assert tried == 6
