"""system_profiler's "proc total:...", whose order changed twice, where sysctl names no levels."""

import json

import pytest

from mlx_hwprobe import Capture, ProgramOutput, profile_from_capture


def cores(chip: str, processors: object, macos: str | None) -> dict[str, int] | None:
    machine = {"chip_type": chip, "number_processors": processors}
    outputs = {
        "system_profiler.SPHardwareDataType.json": ProgramOutput(
            0, json.dumps({"SPHardwareDataType": [machine]})
        )
    }
    if macos is not None:
        outputs["sw_vers"] = ProgramOutput(0, f"ProductVersion:\t\t{macos}\n")
    found = profile_from_capture(Capture(outputs)).cpu_cores
    return None if found is None else dict(found)


@pytest.mark.parametrize(
    ("chip", "processors", "macos", "expected"),
    [
        ("Apple M1", "proc 8:4:4", "11.6", {"performance": 4, "efficiency": 4}),
        ("Apple M4", "proc 10:4:6", None, {"performance": 4, "efficiency": 6}),
        # The chip's row knows which order gives a CPU that exists.
        ("Apple M5 Max", "proc 18:6:0:12", None, {"super": 6, "performance": 12}),
        ("Apple M5 Max", "proc 18:6:12:0", None, {"super": 6, "performance": 12}),
        ("Apple M2 Ultra", "proc 24:16:8:0", None, {"performance": 16, "efficiency": 8}),
        ("Apple M2 Pro", "proc 12:0:8:4", None, {"performance": 8, "efficiency": 4}),
        ("Apple M6", "proc 12:2:4:6", "27.0", {"super": 2, "performance": 4, "efficiency": 6}),
        # Without a row macOS's version decides, and without either nothing is said.
        ("Apple M7", "proc 14:2:6:6", "26.4", {"super": 2, "efficiency": 6, "performance": 6}),
        ("Apple M7", "proc 14:2:4:8", "28.0", {"super": 2, "performance": 4, "efficiency": 8}),
        ("Apple M7", "proc 14:2:4:8", None, None),
        # What doesn't add up, or isn't of that form, is not believed.
        ("Apple M1", "proc 8:4:5", "12.0", None),
        ("Apple M1", 8, "12.0", None),
        ("Apple M1", "proc 0:0:0", "12.0", None),
    ],
)
def test_cores_are_named_only_where_their_order_can_be_told(
    chip: str, processors: object, macos: str | None, expected: dict[str, int] | None
) -> None:
    assert cores(chip, processors, macos) == expected
