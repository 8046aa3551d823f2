"""Detecting the hardware, or reading it from a capture, and saving what was found."""

import json
from dataclasses import dataclass
from pathlib import Path

from mlx_hwprobe import HardwareProfile, detect, load_profile
from mlx_stack import atomic_file
from mlx_stack.paths import Home


@dataclass(frozen=True, slots=True)
class SavedProfile:
    """The profile that every later command plans with.

    Attributes:
        profile: The machine.
        path: Where it was saved.
        is_this_machine: False where it was read from a capture.
    """

    profile: HardwareProfile
    path: Path
    is_this_machine: bool


def save_profile(home: Home, capture: Path | None = None) -> SavedProfile:
    """Detect this machine, or read the one of `capture`, and save its profile.

    Args:
        home: The state folder; made where it doesn't exist.
        capture: A file that `mlx-hwprobe capture` wrote, or a saved profile.

    Raises:
        NotAppleSiliconError: It is an Intel Mac; nothing is saved.
        InvalidDocumentError: The file is no capture and no profile.
        HwprobeError: Nothing about the machine could be read.
    """
    profile = detect() if capture is None else load_profile(capture)
    home.create()
    atomic_file.write_text(home.profile, json.dumps(profile.to_json(), indent=2) + "\n")
    return SavedProfile(profile, home.profile, is_this_machine=capture is None)
