"""A LaunchAgent as the bytes of a property list, and back; pure."""

import plistlib
from xml.parsers.expat import ExpatError

from mlx_launchd.agent import LaunchAgent
from mlx_launchd.entries import as_dictionary, from_entries, to_entries
from mlx_launchd.errors import PlistError
from mlx_launchd.validation import validate


def to_plist(agent: LaunchAgent) -> bytes:
    """Give the XML property list that launchd reads, keys in the order of LaunchAgent.

    Raises:
        PlistError: launchd would refuse the job or read it differently.
    """
    validate(agent)
    return plistlib.dumps(to_entries(agent), fmt=plistlib.FMT_XML, sort_keys=False)


def from_plist(data: bytes) -> LaunchAgent:
    """Give the job that an XML or binary property list describes, in any form launchd allows.

    Raises:
        PlistError: It is no property list, or a value has another type than launchd documents.
    """
    return from_entries(_loaded(data))


def _loaded(data: bytes) -> dict[str, object]:
    try:
        value: object = plistlib.loads(data)
    except (
        # plistlib lets through whatever its parsers meet in a damaged file.
        ExpatError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
        RecursionError,
    ) as error:
        raise PlistError("", expected="XML or a binary property list", got=str(error)) from error
    return as_dictionary("", value)
