import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_hwprobe import gpu_memory_limit

GIB = 1 << 30

# Decimal MB of recommendedMaxWorkingSetSize, as llama.cpp prints it at start-up.
PUBLISHED_OLD_MB = {8: 5726.63, 16: 11453.25, 24: 17179.89, 48: 38654.71, 64: 51539.61}
PUBLISHED_NEW_MB = {
    8: 5726.63,
    16: 12713.12,
    24: 19069.67,
    32: 26800.60,
    36: 30150.67,
    48: 40200.90,
    64: 55662.79,
    128: 115448.73,
    192: 173173.08,
    256: 223338.30,
    512: 498216.21,
}


@pytest.mark.parametrize(("gb", "mb"), PUBLISHED_OLD_MB.items())
def test_up_to_macos_14_the_limit_is_what_was_measured_then(gb: int, mb: float) -> None:
    limit = gpu_memory_limit(gb * GIB, os_version="14.4.1")
    assert limit is not None
    assert limit.source == "table"
    assert round(limit.limit_bytes / 1e6, 2) == mb


@pytest.mark.parametrize("version", ["26.0", "27.0.1"])
@pytest.mark.parametrize(("gb", "mb"), PUBLISHED_NEW_MB.items())
def test_from_macos_26_on_the_limit_is_what_was_measured_now(
    gb: int, mb: float, version: str
) -> None:
    limit = gpu_memory_limit(gb * GIB, os_version=version)
    assert limit is not None
    assert limit.source == "table"
    assert round(limit.limit_bytes / 1e6, 2) == mb


@pytest.mark.parametrize("version", [None, "15.3", "", "unknown"])
def test_where_the_macos_is_unknown_or_between_the_smaller_share_is_estimated(
    version: str | None,
) -> None:
    limit = gpu_memory_limit(16 * GIB, os_version=version)
    assert limit is not None
    assert (limit.limit_bytes, limit.source) == (16 * GIB * 2 // 3, "estimate")


def test_a_size_whose_limit_never_changed_is_known_in_between_too() -> None:
    limit = gpu_memory_limit(8 * GIB, os_version="15.5")
    assert limit is not None
    assert (limit.limit_bytes, limit.source) == (5726633984, "table")


@pytest.mark.parametrize(
    ("gb", "version", "share"),
    [
        (18, "14.0", 2 / 3),
        (36, "14.0", 2 / 3),
        (96, "14.0", 3 / 4),
        (4, "26.0", 2 / 3),
        (18, "26.0", 0.74),
        (96, "26.0", 0.81),
        (128, "28.0", 0.84),
    ],
)
def test_a_size_that_was_not_measured_is_an_estimate(gb: int, version: str, share: float) -> None:
    limit = gpu_memory_limit(gb * GIB, os_version=version)
    assert limit is not None
    assert limit.source == "estimate"
    assert limit.limit_bytes == pytest.approx(gb * GIB * share)


def test_what_the_user_set_beats_everything() -> None:
    limit = gpu_memory_limit(
        128 * GIB, os_version="26.0", wired_limit_bytes=118 * GIB, metal_limit_bytes=100 * GIB
    )
    assert limit is not None
    assert (limit.limit_bytes, limit.source) == (118 * GIB, "sysctl")


def test_zero_means_the_default_not_nothing() -> None:
    limit = gpu_memory_limit(64 * GIB, os_version="26.0", wired_limit_bytes=0)
    assert limit is not None
    assert limit.source == "table"


def test_metals_own_answer_beats_the_table() -> None:
    limit = gpu_memory_limit(64 * GIB, os_version="26.0", metal_limit_bytes=60129542144)
    assert limit is not None
    assert (limit.limit_bytes, limit.source) == (60129542144, "metal")


def test_a_limit_above_the_memory_is_the_memory() -> None:
    limit = gpu_memory_limit(16 * GIB, wired_limit_bytes=64 * GIB)
    assert limit is not None
    assert limit.limit_bytes == 16 * GIB


def test_nothing_known_is_nothing_said() -> None:
    assert gpu_memory_limit(None, os_version="26.0") is None


@given(
    memory=st.integers(1, 1 << 40),
    major=st.none() | st.integers(11, 40),
    wired=st.none() | st.integers(0, 1 << 41),
    measured=st.booleans(),
)
def test_the_gpu_never_gets_more_than_there_is(
    memory: int, major: int | None, wired: int | None, measured: bool
) -> None:
    limit = gpu_memory_limit(
        memory,
        os_version=None if major is None else f"{major}.1",
        wired_limit_bytes=wired,
        measured_applies=measured,
    )
    assert limit is not None
    assert 0 <= limit.limit_bytes <= memory


@given(st.integers(11, 30), st.integers(1, 600), st.integers(0, 600))
def test_more_memory_is_never_less_for_the_gpu(major: int, gb: int, more: int) -> None:
    small = gpu_memory_limit(gb * GIB, os_version=f"{major}.0")
    large = gpu_memory_limit((gb + more) * GIB, os_version=f"{major}.0")
    assert small is not None
    assert large is not None
    assert small.limit_bytes <= large.limit_bytes
