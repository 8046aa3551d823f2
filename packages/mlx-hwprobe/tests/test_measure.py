import json

import pytest

from mlx_hwprobe import (
    BandwidthMeasurement,
    HardwareProfile,
    measure_bandwidth,
    parse_hardware_spec,
)
from mlx_hwprobe.measure import KernelRuns
from mlx_hwprobe.render import render_measurement

MEASURED = BandwidthMeasurement(
    "mlx-gpu",
    "Apple M4 Max",
    (
        KernelRuns("copy", 512, (400.0, 410.0, 420.0)),
        KernelRuns("triad", 768, (430.0, 436.8, 440.0)),
    ),
)


def test_a_real_copy_on_the_processor_is_timed_run_by_run() -> None:
    measurement = measure_bandwidth(repetitions=3, array_bytes=8 << 20, use_mlx=False)
    (copy,) = measurement.kernels
    assert measurement.backend == "cpu"
    assert "thread" in (measurement.device or "")
    assert len(copy.runs_gb_s) == 3
    assert all(figure > 0 for figure in copy.runs_gb_s)


def test_the_result_names_its_device_and_compares_with_the_table() -> None:
    document = MEASURED.to_document(parse_hardware_spec("m4-max:40:128"))
    assert document["backend"] == "mlx-gpu"
    assert document["memory_bandwidth_gb_s"] == 436.8
    assert document["bandwidth_source"] == "measured"
    assert (document["low_gb_s"], document["high_gb_s"]) == (430.0, 440.0)
    assert document["table_gb_s"] == 546
    assert document["fraction_of_table"] == 0.8
    assert json.dumps(document)


@pytest.mark.parametrize(
    "profile",
    [
        HardwareProfile(chip="AMD EPYC"),
        HardwareProfile(chip="M9", memory_bandwidth_gb_s=153, bandwidth_source="estimate"),
    ],
)
def test_without_a_row_in_the_table_there_is_nothing_to_compare_with(
    profile: HardwareProfile,
) -> None:
    document = MEASURED.to_document(profile)
    assert (document["table_gb_s"], document["fraction_of_table"]) == (None, None)


def test_people_read_median_spread_and_the_share_of_apples_figure() -> None:
    text = render_measurement(MEASURED, 546)
    assert text.startswith("Memory bandwidth: 436.8 GB/s (Apple M4 Max, GPU, through MLX)")
    assert "80% of Apple's 546 GB/s." in text
    assert "2.3%" in text
