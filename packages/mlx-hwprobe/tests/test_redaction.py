import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_hwprobe import (
    Capture,
    HardwareProfile,
    NotAppleSiliconError,
    ProgramOutput,
    profile_from_capture,
    redact,
)
from mlx_hwprobe.redaction import REMOVED

CAPTURES = sorted((Path(__file__).parent / "captures").glob("*.json"))


def read(capture: Capture) -> HardwareProfile:
    try:
        return profile_from_capture(capture)
    except NotAppleSiliconError as error:
        return error.profile


serials = st.from_regex(r"[A-Z][A-Z0-9]{4}\d[A-Z0-9]{4,6}", fullmatch=True)
uuids = st.uuids().map(str) | st.uuids().map(lambda value: str(value).upper())
provisioning_ids = st.from_regex(r"[0-9A-F]{8}-[0-9A-F]{16}", fullmatch=True)
addresses = st.from_regex(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", fullmatch=True)
names = st.from_regex(r"[a-z]{4,8}(-[a-z0-9]{2,6})?", fullmatch=True)


def everything_a_mac_says(secret: str, user: str, host: str) -> Capture:
    hardware = {
        "chip_type": "Apple M4 Max",
        "machine_model": "Mac16,9",
        "machine_name": f"{user}'s Mac",
        "number_processors": "proc 16:12:4",
        "physical_memory": "128 GB",
        "platform_UUID": secret,
        "serial_number": secret,
        "some_future_key": secret,
    }
    display = {
        "_name": "Apple M4 Max",
        "sppci_cores": "40",
        "sppci_model": "Apple M4 Max",
        "_spdisplays_regid": secret,
        "spdisplays_ndrvs": [{"_name": f"{user}'s display", "serial": secret}],
    }
    sysctl = [
        "hw.memsize: 137438953472",
        "hw.model: Mac16,9",
        f"kern.hostname: {host}",
        f"kern.uuid: {secret}",
        "machdep.cpu.brand_string: Apple M4 Max",
        f"kern.bootargs: -u {user}",
    ]
    ioreg = [
        "+-o AGXAcceleratorG16C  <class AGXAcceleratorG16C, id 0x1>",
        '  "model" = "Apple M4 Max"',
        '  "gpu-core-count" = 40',
        f'  "IOPlatformSerialNumber" = "{secret}"',
        f'  "IOPlatformUUID" = "{secret}"',
    ]
    outputs = {
        "sysctl": "\n".join(sysctl),
        "ioreg.AGXAccelerator": "\n".join(ioreg),
        "system_profiler.SPHardwareDataType.json": json.dumps({"SPHardwareDataType": [hardware]}),
        "system_profiler.SPDisplaysDataType.json": json.dumps({"SPDisplaysDataType": [display]}),
        "sw_vers": "ProductName:\t\tmacOS\nProductVersion:\t\t26.4\nBuildVersion:\t\t25E210\n",
        "os-release": f'PRETTY_NAME="Linux for {user} on {host} {secret}"\nHOSTNAME={host}\n',
        "cpuinfo": f"model name\t: CPU of {user} {secret}\nSerial\t\t: {secret}\n",
        "nvidia-smi": f"NVIDIA L40S {secret} {host}, 46068 MiB\n",
        "whatever": f"{secret} {user} {host}",
    }
    return Capture({name: ProgramOutput(0, text) for name, text in outputs.items()})


@given(secret=serials | uuids | provisioning_ids | addresses, user=names, host=names)
def test_nothing_that_names_a_machine_or_a_person_survives(
    secret: str, user: str, host: str
) -> None:
    host = f"{host}x.local"
    text = json.dumps(
        redact(everything_a_mac_says(secret, user, host), names=[user, host]).to_document()
    )
    assert secret not in text
    assert host not in text
    assert "'s Mac" not in text
    for value in json.loads(text)["outputs"].values():
        words = value["stdout"].replace(",", " ").replace('"', " ").split()
        assert user not in words or user in HARDWARE


HARDWARE = {"apple", "core", "cores", "standard", "super", "virtual", "model", "linux", "xeon"}


@given(secret=serials | uuids, user=names)
def test_damaged_json_is_left_out_whole(secret: str, user: str) -> None:
    name = "system_profiler.SPHardwareDataType.json"
    capture = Capture(
        {name: ProgramOutput(0, f'{{"SPHardwareDataType": [{{"x": "{secret} {user}"')}
    )
    assert redact(capture).outputs[name].stdout == ""


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_what_is_left_gives_the_same_profile(path: Path) -> None:
    capture = Capture.from_document(json.loads(path.read_text()))
    redacted = redact(capture, names=["anna", "annas-studio.local"])
    if path.stem == "nothing_readable":
        assert redacted == capture
        return
    assert read(redacted) == read(capture)
    text = json.dumps(redacted.to_document())
    assert "serial" not in text
    assert "UUID" not in text
    assert "Anna" not in text


def test_a_user_called_max_does_not_hide_the_chip() -> None:
    capture = Capture({"sysctl": ProgramOutput(0, "machdep.cpu.brand_string: Apple M4 Max\n")})
    assert redact(capture, names=["max"]) == capture


def test_a_user_name_is_removed_only_as_a_word() -> None:
    capture = Capture({"os-release": ProgramOutput(0, 'PRETTY_NAME="Anatomy OS of Ana"\n')})
    assert redact(capture, names=["ana"]).outputs["os-release"].stdout == (
        f'PRETTY_NAME="Anatomy OS of {REMOVED}"\n'
    )
