from pathlib import Path

import pytest

from mlx_catalog import InvalidCatalogError, ModelRole, UnreadableCatalogError, load_entries
from mlx_catalog.errors import Problem
from mlx_catalog.parse import parse_entry


def problems_of(text: str) -> tuple[Problem, ...]:
    parsed = parse_entry(text, "lynx-7b.yaml")
    assert parsed.entry is None
    return parsed.problems


def test_a_valid_entry_is_read(entry_text: str):
    parsed = parse_entry(entry_text, "lynx-7b.yaml")
    assert parsed.problems == ()
    assert parsed.entry is not None
    assert parsed.entry.geometry.full_attention_layers == 8
    assert parsed.entry.min_mlx_lm_version == "0.28.0"


@pytest.mark.parametrize(
    ("old", "new", "line", "key_path", "expected", "got"),
    [
        ("  layers: 32", "  layers: thirty", 15, "geometry.layers", "int", "'thirty'"),
        ("  layers: 32", "  layers: 0", 15, "geometry.layers", "int >= 1", "0"),
        ("gated: false", "gated: no", 11, "gated", "bool", "'no'"),
        ("params_b: 7.25", "params_b: -7", 4, "params_b", "float > 0", "-7"),
        ("  overall: 41.5", "  overall: 141", 36, "quality.overall", "float <= 100", "141"),
        ("  layers: 32\n", "", 14, "geometry.layers", "a value", "nothing: the key is missing"),
        ("family: lynx", "famly: lynx", 3, "famly", "'family'", "the unknown key 'famly'"),
        ("aliases: [lynx]", 'aliases: ["lynx\\n"]', 9, "aliases[0]", "str matching", "'lynx\\n'"),
        ("aliases: [lynx]", "aliases: [LYNX]", 9, "aliases[0]", "str matching", "'LYNX'"),
        (
            "transformer-swa",
            "transfromer",
            5,
            "architecture",
            "one of transformer",
            "'transfromer'",
        ),
        ("quant: int4", "quant: q4", 41, "benchmarks.m4-pro-24.quant", "one of int4", "'q4'"),
        ("  m4-pro-24:", "  my-mac:", 40, "benchmarks.my-mac", "str matching", "'my-mac'"),
    ],
)
def test_a_wrong_value_is_told_with_file_line_key_expected_and_found(
    entry_text: str, old: str, new: str, line: int, key_path: str, expected: str, got: str
):
    problems = problems_of(entry_text.replace(old, new, 1))
    match = [problem for problem in problems if problem.key_path == key_path]
    assert match, problems
    problem = match[0]
    assert (problem.file, problem.line) == ("lynx-7b.yaml", line)
    assert problem.expected.startswith(expected)
    assert problem.got == got
    assert str(problem).startswith(f"lynx-7b.yaml:{line}: {key_path}: expected {expected}")


def embedder_text(entry_text: str, role: str = "embedding") -> str:
    """The entry as an embedder's, which calls no tools."""
    start, rest = entry_text.split("capabilities:\n")
    rest = rest[rest.index("quality:") :]
    more = "dimensions: 1024\nmatryoshka: true\npooling: lasttoken\n"
    capabilities = "capabilities:\n  tool_calling: false\n  thinking: false\n  vision: false\n"
    return f"role: {role}\n{more}{start}{capabilities}{rest}"


def test_an_embedder_says_what_its_vectors_are(entry_text: str):
    entry = parse_entry(embedder_text(entry_text), "lynx-7b.yaml").entry
    assert entry is not None
    assert (entry.role, entry.dimensions) == (ModelRole.EMBEDDING, 1024)
    assert (entry.matryoshka, entry.pooling) == (True, "lasttoken")


def test_an_entry_that_says_nothing_of_its_role_chats(entry_text: str):
    entry = parse_entry(entry_text, "lynx-7b.yaml").entry
    assert entry is not None
    assert entry.role is ModelRole.CHAT
    assert (entry.dimensions, entry.matryoshka, entry.pooling) == (None, None, None)


def test_only_an_embedder_has_vectors(entry_text: str):
    problems = problems_of(embedder_text(entry_text, "rerank"))
    assert {each.key_path for each in problems} == {"dimensions", "matryoshka", "pooling"}
    assert {each.expected for each in problems} == {"nothing, for the role rerank"}


def test_an_embedder_calls_no_tools(entry_text: str):
    (problem,) = problems_of(f"role: embedding\n{entry_text}")
    assert problem.key_path == "capabilities.tool_calling"


@pytest.mark.parametrize("role", ["chat", "embedding", "rerank"])
def test_a_model_that_reads_text_has_a_context(entry_text: str, role: str):
    text = embedder_text(entry_text).replace("role: embedding", f"role: {role}")
    without = "\n".join(
        line for line in text.splitlines() if not line.startswith("max_context_tokens")
    )
    assert "max_context_tokens" in {each.key_path for each in problems_of(without)}


def test_an_unknown_role_is_answered_with_those_that_there_are(entry_text: str):
    (problem,) = problems_of(f"role: embed\n{entry_text}")
    assert problem.expected.startswith("one of chat, embedding, rerank")


def test_all_mistakes_of_a_file_are_told_at_once_in_order(entry_text: str):
    text = (
        entry_text.replace("params_b: 7.25", "params_b: lots")
        .replace("kv_heads: 4", "kv_heads: four")
        .replace("gen_tps: 51.5", "gen_tps: fast")
        .replace("tags: [tools]", "tag: [tools]")
    )
    assert [problem.key_path for problem in problems_of(text)] == [
        "params_b",
        "geometry.kv_heads",
        "benchmarks.m4-pro-24.gen_tps",
        "tag",
    ]


@pytest.mark.parametrize(
    ("old", "new", "key_path"),
    [
        (
            "tool_call_parser: hermes",
            "tool_call_parser: llama3_json",
            "capabilities.tool_call_parser",
        ),
        ('reasoning_parser: ""', "reasoning_parser: nemotron", "capabilities.reasoning_parser"),
        ("tool_call_parser: hermes", 'tool_call_parser: ""', "capabilities.tool_calling"),
        ("tool_calling: true", "tool_calling: false", "capabilities.tool_call_parser"),
        ('reasoning_parser: ""', "reasoning_parser: qwen3", "capabilities.reasoning_parser"),
        ("    overall: an index of example.org", "    coding: x", "quality.source.overall"),
        ("    disk_size_source: the repository's file list\n", "", "sources.int4.disk_size_source"),
        ("    hf_repo: example/Lynx-7B-4bit\n", "", "sources.int4"),
        ("  sliding_window: 2048\n", "", "geometry.sliding_window"),
        ("sliding_layers: 24", "sliding_layers: 25", "geometry.layers"),
        ("architecture: transformer-swa", "architecture: moe-swa", "active_params_b"),
        ("architecture: transformer-swa", "architecture: mamba2-hybrid", "geometry.recurrent"),
        ("aliases: [lynx]", "aliases: [lynx-7b]", "aliases[0]"),
        ("aliases: [lynx]", "aliases: [lynx, lynx]", "aliases[1]"),
        ("aliases: [lynx]", "alias_notes: {puma: because}", "alias_notes.puma"),
        ("  kv_heads: 4", "  query_heads: 30\n  kv_heads: 4", "geometry.query_heads"),
        ("params_b: 7.25", "params_b: 7.25\ntower_params_b: 7.25", "tower_params_b"),
        (
            "params_b: 7.25",
            "params_b: 7.25\nmtp_acceptance: {low: 0.8, high: 0.7, source: a test}",
            "mtp_acceptance.low",
        ),
        ("hidden_size: 4096", "hidden_size: 4096\n  vocab_size: 2000000", "geometry.vocab_size"),
        (
            "hidden_size: 4096",
            "hidden_size: 4096\n  vocab_size: 1000000\n  tied_embeddings: false",
            "geometry.vocab_size",
        ),
        (
            "hidden_size: 4096",
            "hidden_size: 4096\n  vocab_size: 262144\n  per_layer_embedding_dim: 900",
            "geometry.vocab_size",
        ),
    ],
)
def test_a_rule_that_an_entry_breaks_is_told(entry_text: str, old: str, new: str, key_path: str):
    text = entry_text.replace(old, new, 1)
    assert text != entry_text
    assert key_path in {problem.key_path for problem in problems_of(text)}


TIED = "hidden_size: 4096\n  vocab_size: 262144\n  tied_embeddings: true"  # 1.07 x 10^9


def test_a_tied_embedding_that_was_counted_twice_is_told_by_the_published_size(entry_text: str):
    tied = entry_text.replace("hidden_size: 4096", TIED)
    assert parse_entry(tied, "lynx-7b.yaml").entry is not None
    (problem,) = problems_of(tied.replace("params_b: 7.25", "params_b: 8.32"))
    assert problem.key_path == "params_b"
    assert "7.25" in problem.expected
    assert problem.got == "8.32"


def test_an_estimated_size_says_nothing_of_an_embedding_counted_twice(entry_text: str):
    text = entry_text.replace("hidden_size: 4096", TIED).replace("params_b: 7.25", "params_b: 8.32")
    text = text.replace("disk_size_gb: 4.1", "disk_size_gb: 4.68")
    estimated = "    disk_size_estimated: true\n    disk_size_source"
    assert parse_entry(text.replace("    disk_size_source", estimated), "lynx-7b.yaml").entry


INT8 = """\
  int8:
    hf_repo: example/Lynx-7B-8bit
    disk_size_gb: {size}
    disk_size_source: estimate
    disk_size_estimated: true
    source: the model's page
capabilities:
"""


@pytest.mark.parametrize(
    ("size", "is_wrong"), [(7.74, False), (7.9, False), (7.3, True), (8.5, True)]
)
def test_an_estimated_size_has_to_agree_with_the_published_one_beside_it(
    entry_text: str, size: float, is_wrong: bool
):
    parsed = parse_entry(
        entry_text.replace("capabilities:\n", INT8.format(size=size), 1), "lynx-7b.yaml"
    )
    paths = [problem.key_path for problem in parsed.problems]
    assert paths == (["sources.int8.disk_size_gb"] if is_wrong else [])


def test_an_estimated_size_counts_no_head_that_mlx_drops_and_towers_in_16_bits(entry_text: str):
    text = entry_text.replace(
        "    disk_size_source", "    disk_size_estimated: true\n    disk_size_source"
    )
    text = text.replace("params_b: 7.25", "params_b: 8.25\ntower_params_b: 0.5\nmtp_params_b: 0.5")
    text = text.replace("vision: false", "vision: true")
    # 7.25 x 10^9 at 4.5 bits and 0.5 x 10^9 at 16
    assert parse_entry(text.replace("gb: 4.1", "gb: 5.08"), "lynx-7b.yaml").entry is not None
    (problem,) = problems_of(text.replace("gb: 4.1", "gb: 4.64"))
    assert problem.expected.startswith("about 5.08 GB")


def test_two_published_sizes_of_different_models_are_refused(entry_text: str):
    int8 = INT8.format(size=8.5).replace("    disk_size_estimated: true\n", "")
    (problem,) = problems_of(entry_text.replace("capabilities:\n", int8, 1))
    assert problem.key_path == "sources"


def test_types_and_rules_are_told_together(entry_text: str):
    text = entry_text.replace("gated: false", "gated: maybe").replace(
        "tool_call_parser: hermes", 'tool_call_parser: ""'
    )
    text = text.replace("kv_heads: 4", "kv_heads: 0").replace("  sliding_window: 2048\n", "")
    assert [problem.key_path for problem in problems_of(text)] == [
        "gated",
        "geometry.kv_heads",
        "capabilities.tool_calling",
    ]


def test_an_unknown_parser_is_answered_with_those_of_the_engine(entry_text: str):
    (problem,) = problems_of(entry_text.replace("hermes", "llama3_json"))
    assert problem.got == "'llama3_json'"
    assert problem.expected.startswith('one of "", auto, generic, qwen')


def test_a_mixture_of_experts_sized_by_its_active_part_is_refused(entry_text: str):
    text = entry_text.replace("params_b: 7.25", "params_b: 30.5\nactive_params_b: 3.3")
    assert [problem.key_path for problem in problems_of(text)] == ["sources.int4.disk_size_gb"]


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ("id: a\nname: [b\n", 3, "did not find expected"),
        ("id: a\nid: b\n", 2, "'id' again"),
        ("id: &anchor a\n", 1, "an anchor or a tag"),
        ("id: !!str a\n", 1, "an anchor or a tag"),
        ("id: *a\n", 1, "a reference to another one"),
        ("[a]: b\n", 1, "a collection"),
        ("id: a\n---\nid: b\n", 2, "a second one"),
        ("id: a\x07\n", 1, "#x0007"),
    ],
)
def test_a_file_that_is_no_plain_yaml_is_told_with_its_line(text: str, line: int, got: str):
    (problem,) = problems_of(text)
    assert problem.line == line
    assert got in problem.got or got in problem.expected


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "- a list\n", "42\n"])
def test_a_file_without_an_entry_says_that_a_mapping_was_expected(text: str):
    (problem,) = problems_of(text)
    assert problem.expected == "a mapping"


def test_a_file_must_be_named_as_its_entry(entry_folder: Path):
    (entry_folder / "lynx-7b.yaml").rename(entry_folder / "puma-7b.yaml")
    with pytest.raises(InvalidCatalogError) as caught:
        load_entries(entry_folder)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key_path) == (1, "id")
    assert "'puma-7b'" in problem.expected


def test_two_files_may_not_share_an_alias(entry_folder: Path, entry_text: str):
    other = entry_text.replace("id: lynx-7b", "id: lynx-7b-old")
    (entry_folder / "lynx-7b-old.yaml").write_text(other, encoding="utf-8")
    with pytest.raises(InvalidCatalogError) as caught:
        load_entries(entry_folder)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key_path) == (9, "aliases[0]")
    assert "lynx-7b-old.yaml" in problem.got


def test_the_problems_of_all_files_are_told_together(entry_folder: Path):
    for name in ("a", "b"):
        (entry_folder / f"{name}.yaml").write_text(f"id: {name}\n", encoding="utf-8")
    with pytest.raises(InvalidCatalogError) as caught:
        load_entries(entry_folder)
    assert {Path(problem.file).name for problem in caught.value.problems} == {"a.yaml", "b.yaml"}


def test_a_missing_file_is_told_by_name(tmp_path: Path):
    with pytest.raises(UnreadableCatalogError, match=r"nowhere\.yaml: No such file"):
        load_entries(tmp_path / "nowhere.yaml")


def test_a_file_without_end_is_refused_rather_than_read(tmp_path: Path):
    with pytest.raises(UnreadableCatalogError, match="/dev/zero: a device, not a file"):
        load_entries(Path("/dev/zero"))
    file = tmp_path / "huge.yaml"
    with file.open("wb") as hole:
        hole.truncate(2**30)
    with pytest.raises(UnreadableCatalogError, match="larger than 1 MB"):
        load_entries(file)


def test_a_file_in_another_encoding_is_told(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_bytes("id: ä".encode("latin-1"))
    with pytest.raises(UnreadableCatalogError, match="no UTF-8 text"):
        load_entries(file)
