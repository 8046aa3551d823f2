"""Whatever a program prints, the answer is a profile or the library's own error."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_hwprobe import (
    Capture,
    HardwareProfile,
    HwprobeError,
    InvalidDocumentError,
    NotAppleSiliconError,
    ProgramOutput,
    chip_names,
    chip_table,
    profile_from_capture,
)
from mlx_hwprobe.detection import parse_profile

CAPTURES = [path.read_text() for path in sorted((Path(__file__).parent / "captures").glob("*"))]
NAMES = sorted({name for text in CAPTURES for name in json.loads(text)["outputs"]})

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
sysctl_lines = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "hw.memsize",
                "hw.model",
                "hw.nperflevels",
                "hw.perflevel0.name",
                "hw.perflevel0.physicalcpu",
                "hw.perflevel1.name",
                "iogpu.wired_limit_mb",
                "kern.osproductversion",
                "machdep.cpu.brand_string",
                "sysctl.proc_translated",
            ]
        ),
        st.sampled_from([": ", "=", " = ", ":", " "]),
        st.text(max_size=12) | st.integers().map(str) | st.sampled_from(chip_names()),
    ).map("".join)
).map("\n".join)
system_profiler_json = st.dictionaries(
    st.sampled_from(["SPDisplaysDataType", "SPHardwareDataType"]),
    st.lists(
        st.dictionaries(
            st.sampled_from(
                [
                    "_name",
                    "chip_type",
                    "cpu_type",
                    "machine_model",
                    "number_processors",
                    "physical_memory",
                    "sppci_cores",
                    "sppci_model",
                ]
            ),
            json_values
            | st.sampled_from(["proc 8:4:4", "proc 0:0:0:0", "16 GB", "1e9 GB", "٣ GB"]),
        )
        | json_values,
        max_size=3,
    )
    | json_values,
).map(json.dumps)
anything = st.one_of(
    st.text(max_size=60),
    sysctl_lines,
    system_profiler_json,
    st.dictionaries(st.text(max_size=8), json_values).map(json.dumps),
    st.from_regex(r'"(gpu-core-count|model)" = ("[^"]{0,9}"|-?\d{0,25})'),
    st.from_regex(r"(ProductVersion|MemTotal|model name|PRETTY_NAME)\s*[:=].{0,20}"),
)
captures = st.dictionaries(
    st.sampled_from(NAMES), st.builds(ProgramOutput, st.sampled_from([0, 0, 0, 1, 127]), anything)
).map(Capture)


def read(capture: Capture) -> HardwareProfile | None:
    try:
        return profile_from_capture(capture)
    except NotAppleSiliconError as error:
        return error.profile
    except HwprobeError:
        return None


@settings(max_examples=60)
@given(captures)
def test_invented_outputs_never_break_the_parsers(capture: Capture) -> None:
    profile = read(capture)
    if profile is not None:
        again = HardwareProfile.from_document(json.loads(json.dumps(profile.to_document())))
        assert again == profile


@given(st.data())
def test_a_real_capture_cut_or_spliced_anywhere_never_breaks_the_parsers(
    data: st.DataObject,
) -> None:
    document = json.loads(data.draw(st.sampled_from(CAPTURES)))
    other = json.loads(data.draw(st.sampled_from(CAPTURES)))
    for name, output in document["outputs"].items():
        text = output["stdout"]
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        cut = data.draw(
            st.sampled_from([text, text[:start], text[start:end], text[:start] + text[end:]])
        )
        splice = other["outputs"].get(name, {}).get("stdout", "")
        output["stdout"] = data.draw(st.sampled_from([cut, cut + splice, splice + cut]))
    read(Capture.from_document(document))


@given(json_values)
def test_a_capture_of_any_other_shape_is_refused(document: object) -> None:
    try:
        capture = Capture.from_document({"schema_version": 1, "outputs": {"sysctl": document}})
    except InvalidDocumentError as error:
        assert error.place.startswith("outputs.sysctl")  # noqa: PT017 - null is no error
    else:
        assert document is None or isinstance(capture.outputs["sysctl"], ProgramOutput)


@given(
    st.text(max_size=80)
    | json_values.map(json.dumps)
    | st.sampled_from(CAPTURES).map(lambda t: t[:99])
)
def test_a_file_of_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_profile(text.encode(errors="surrogatepass"))
    except HwprobeError as error:
        assert str(error)  # noqa: PT017 - some texts are profiles


@pytest.mark.parametrize("gb", sorted({gb for row in chip_table() for gb in row.memory_options_gb}))
def test_a_memory_size_that_was_cut_off_is_unknown_and_not_smaller(gb: int) -> None:
    line = f"hw.memsize: {gb << 30}"
    for end in range(len("hw.memsize: "), len(line)):
        sysctl = ProgramOutput(0, f"hw.model: Mac16,9\n{line[:end]}")
        assert profile_from_capture(Capture({"sysctl": sysctl})).memory_bytes is None
