"""What the probe read from a machine, as a value that can be saved and replayed (decision 0033)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlx_hwprobe.errors import InvalidDocumentError
from mlx_hwprobe.profile import SCHEMA_VERSION, as_object, check_schema_version

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ProgramOutput:
    """What one program printed (or one file held), and how it ended."""

    returncode: int
    stdout: str


@dataclass(frozen=True, slots=True)
class Capture:
    """The outputs of the programs that were asked, each under a name.

    On a Mac: `sysctl`, `ioreg.AGXAccelerator`, `system_profiler.SPDisplaysDataType.json`,
    `system_profiler.SPHardwareDataType.json`, `sw_vers`, `mlx.device_info`. On Linux: `cpuinfo`,
    `meminfo`, `os-release`, `lscpu`, `nvidia-smi`. Each may be missing or failed.
    """

    outputs: Mapping[str, ProgramOutput]

    def stdout(self, name: str) -> str:
        """What the program called `name` printed; "" where it is missing or failed."""
        output = self.outputs.get(name)
        return output.stdout if output is not None and output.returncode == 0 else ""

    def to_document(self) -> dict[str, Any]:
        """The capture as JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "outputs": {name: asdict(output) for name, output in self.outputs.items()},
        }

    @classmethod
    def from_document(cls, document: object) -> Capture:
        """The capture that `to_document` wrote; a null output is a missing one.

        Raises:
            InvalidDocumentError: The document is not a capture, or of another version.
        """
        keys = as_object(document)
        check_schema_version(keys, "capture")
        outputs = as_object(keys.get("outputs"), "outputs")
        return cls(
            {
                name: _parse_output(as_object(value, f"outputs.{name}"), f"outputs.{name}")
                for name, value in outputs.items()
                if value is not None
            }
        )


def _parse_output(keys: Mapping[str, object], place: str) -> ProgramOutput:
    returncode, stdout = keys.get("returncode"), keys.get("stdout")
    if type(returncode) is not int:
        raise InvalidDocumentError("expected a whole number", place=f"{place}.returncode")
    if stdout is None and returncode != 0:
        stdout = ""  # a program that could not be run printed nothing
    if not isinstance(stdout, str):
        raise InvalidDocumentError("expected a string", place=f"{place}.stdout")
    return ProgramOutput(returncode, stdout)


def parse_json_object(text: str) -> dict[str, Any]:
    """The JSON object in a file's text.

    Raises:
        InvalidDocumentError: The text is not JSON, or no object; says in which line.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidDocumentError(
            f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise InvalidDocumentError(f"not JSON that can be read: {error}") from error
    return as_object(document)
