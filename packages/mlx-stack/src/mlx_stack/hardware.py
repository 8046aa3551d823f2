"""The machine: the saved profile where there is one, else what the probe sees now."""

import json
from dataclasses import dataclass
from pathlib import Path

from mlx_hwprobe import (
    HardwareProfile,
    InvalidDocumentError,
    detect,
    load_profile,
    parse_hardware_specs,
)
from mlx_stack import atomic_file
from mlx_stack.errors import InvalidFileError, UsageError
from mlx_stack.home import Home


def known_hardware(home: Home) -> HardwareProfile:
    """The saved hardware profile; detected where none is saved.

    Raises:
        InvalidFileError: The saved profile is damaged or of another version.
        HwprobeError: Nothing is saved, and detection failed.
    """
    if not home.profile.exists():
        return detect()
    try:
        return load_profile(home.profile)
    except InvalidDocumentError as error:
        problem = str(error).removeprefix(f"{home.profile}: ")
        hint = "`mlx-stack profile` detects the hardware and rewrites it."
        raise InvalidFileError(home.profile, problem, hint=hint) from error


def asked_hardware(home: Home, spec: str | None) -> HardwareProfile:
    """The machine that `--hardware` names, or the known one where it names none.

    Raises:
        UsageError: It names several.
        InvalidFileError: The saved profile is damaged or of another version.
        HwprobeError: The specification means no machine, or detection failed.
    """
    first, *others = asked_macs(home, spec)
    if others:
        raise UsageError(
            "--hardware names several Macs, but this command only supports one.",
            hint="`estimate` and `recommend` support several together.",
        )
    return first


def asked_macs(home: Home, spec: str | None) -> tuple[HardwareProfile, ...]:
    """The machines that `--hardware a+b` names, or the known one where it names none.

    Raises:
        InvalidFileError: The saved profile is damaged or of another version.
        HwprobeError: The specification means no machine, or detection failed.
    """
    return (known_hardware(home),) if spec is None else parse_hardware_specs(spec)


@dataclass(frozen=True, slots=True)
class SavedProfile:
    """The profile that every later command plans with.

    Attributes:
        is_this_machine: False where it was read from a capture.
    """

    profile: HardwareProfile
    path: Path
    is_this_machine: bool

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return self.profile.to_document()


def save_profile(home: Home, capture: Path | None = None) -> SavedProfile:
    """Detect this machine, or read the one of `capture`, and save its profile.

    Args:
        capture: A file that `mlx-hwprobe capture` wrote, or a saved profile.

    Raises:
        NotAppleSiliconError: It is an Intel Mac; nothing is saved.
        InvalidDocumentError: The file is neither a capture nor a profile.
        HwprobeError: Nothing about the machine could be read.
    """
    profile = detect() if capture is None else load_profile(capture)
    home.create()
    atomic_file.write_text(home.profile, json.dumps(profile.to_document(), indent=2) + "\n")
    return SavedProfile(profile, home.profile, is_this_machine=capture is None)
