"""The machine: the saved profile where there is one, else what the probe sees now."""

from mlx_hwprobe import (
    HardwareProfile,
    InvalidDocumentError,
    detect,
    load_profile,
    parse_hardware_spec,
)
from mlx_stack.errors import InvalidFileError
from mlx_stack.paths import Home


def known_hardware(home: Home) -> HardwareProfile:
    """The saved hardware profile; detected anew where none is saved.

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
        hint = "`mlx-stack profile` detects the hardware and writes it anew."
        raise InvalidFileError(home.profile, problem, hint=hint) from error


def asked_hardware(home: Home, spec: str | None) -> HardwareProfile:
    """The machine that `--hardware` names, or the known one where it names none.

    Raises:
        InvalidFileError: The saved profile is damaged or of another version.
        HwprobeError: The specification means no machine, or detection failed.
    """
    return known_hardware(home) if spec is None else parse_hardware_spec(spec)
