"""What the probe read from a machine, as a value that can be saved and replayed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mlx_hwprobe.errors import InvalidDocumentError
from mlx_hwprobe.profile import SCHEMA_VERSION, check_schema_version

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Output:
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

    outputs: Mapping[str, Output]

    def stdout(self, name: str) -> str:
        """What the program called `name` printed; "" where it is missing or failed."""
        output = self.outputs.get(name)
        return output.stdout if output is not None and output.returncode == 0 else ""

    def to_json(self) -> dict[str, Any]:
        """The capture as JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "outputs": {
                name: {"returncode": output.returncode, "stdout": output.stdout}
                for name, output in self.outputs.items()
            },
        }

    @classmethod
    def from_json(cls, document: object) -> Capture:
        """The capture that `to_json` wrote; a null output is a missing one.

        Raises:
            InvalidDocumentError: The document is no capture, or of another version.
        """
        if not isinstance(document, dict):
            raise InvalidDocumentError("expected a JSON object")
        keys = cast("dict[str, object]", document)
        check_schema_version(keys, "capture")
        outputs = keys.get("outputs")
        if not isinstance(outputs, dict):
            raise InvalidDocumentError("expected an object", place="outputs")
        named = cast("dict[str, object]", outputs)
        return cls(
            {
                name: _parse_output(value, f"outputs.{name}")
                for name, value in named.items()
                if value is not None
            }
        )


def _parse_output(value: object, place: str) -> Output:
    if not isinstance(value, dict):
        raise InvalidDocumentError("expected an object or null", place=place)
    keys = cast("dict[str, object]", value)
    returncode, stdout = keys.get("returncode"), keys.get("stdout")
    if type(returncode) is not int:
        raise InvalidDocumentError("expected a whole number", place=f"{place}.returncode")
    if stdout is None and returncode != 0:
        stdout = ""  # a program that could not be run printed nothing
    if not isinstance(stdout, str):
        raise InvalidDocumentError("expected a string", place=f"{place}.stdout")
    return Output(returncode, stdout)


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
    if not isinstance(document, dict):
        raise InvalidDocumentError("expected a JSON object")
    return cast("dict[str, Any]", document)
