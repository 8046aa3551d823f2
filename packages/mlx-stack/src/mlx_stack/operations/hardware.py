"""The machine: the saved profile where there is one, else what the probe sees now."""

import json

from mlx_hwprobe import HardwareProfile, detect
from mlx_stack.paths import Home


def known_hardware(home: Home) -> HardwareProfile:
    """The hardware profile; detected anew where none is saved or the saved one can't be read."""
    try:
        return HardwareProfile.from_json(json.loads(home.profile.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return detect()
