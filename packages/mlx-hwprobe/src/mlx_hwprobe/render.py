"""What people read: profiles, bins, the table and measurements as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlx_hwprobe.profile import bytes_to_gb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlx_hwprobe.chips import ChipBin
    from mlx_hwprobe.measure import BandwidthMeasurement
    from mlx_hwprobe.profile import HardwareProfile

_BANDWIDTH_SOURCES = {
    "table": "Apple's figure for this chip",
    "table-by-memory": "Apple's figure, by the memory size",
    "measured": "measured on this machine",
    "estimate": "an estimate: a lower bound",
}
_LIMIT_SOURCES = {
    "sysctl": "set with iogpu.wired_limit_mb",
    "metal": "Metal's own answer",
    "table": "measured on Macs with this memory size and macOS version",
    "estimate": "an estimate on the safe side",
    "nvidia-smi": "the graphics card's memory",
}
_BACKENDS = {
    "mlx-gpu": "GPU, through MLX",
    "mlx-cpu": "CPU, through MLX",
    "cpu": "CPU",
}


def render_profile(profile: HardwareProfile) -> str:
    """A profile as a heading and a line for each thing that is known."""
    lines = [_heading(profile), ""]
    lines += [f"  {label:<18}{value}" for label, value in _facts(profile) if value]
    lines += [f"\n{note}" for note in _notes(profile)]
    return "\n".join(lines)


def _heading(profile: HardwareProfile) -> str:
    parts = [profile.chip or profile.hw_model or "Unknown machine"]
    parts += [f"{profile.gpu_cores} GPU cores"] if profile.gpu_cores else []
    parts += [f"{profile.memory_gb} GB"] if profile.memory_gb else []
    return ", ".join(parts)


def _facts(profile: HardwareProfile) -> list[tuple[str, str | None]]:
    bandwidth, limit = profile.memory_bandwidth_gb_s, profile.gpu_memory_limit_bytes
    return [
        (
            "Memory bandwidth",
            f"{bandwidth:g} GB/s ({_BANDWIDTH_SOURCES[profile.bandwidth_source or 'estimate']})"
            if bandwidth
            else "unknown",
        ),
        (
            "GPU may use",
            f"{limit / 1e9:.1f} GB ({bytes_to_gb(limit)} GiB,"
            f" {_LIMIT_SOURCES[profile.gpu_memory_limit_source or 'estimate']})"
            if limit
            else "unknown",
        ),
        ("CPU cores", describe_cores(profile.cpu_cores) if profile.cpu_cores else None),
        ("Model", profile.hw_model),
        ("System", _system(profile)),
        ("Profile id", profile.profile_id),
    ]


def _system(profile: HardwareProfile) -> str | None:
    version = profile.os_version
    return f"macOS {version}" if version and version[0].isdigit() else version


def _notes(profile: HardwareProfile) -> list[str]:
    notes: list[str] = []
    if profile.is_virtual_machine:
        no_gpu = ": MLX finds no GPU of Apple's in it" if profile.is_apple_silicon else ""
        notes.append(f"This is a virtual machine{no_gpu}.")
    if profile.is_rosetta:
        notes.append(
            "The probe ran as an Intel program, translated by Rosetta.\n"
            "MLX needs a native (arm64) Python."
        )
    return notes


def describe_cores(cores: Mapping[str, int]) -> str:
    """CPU cores in one phrase: "12 performance + 4 efficiency"."""
    return " + ".join(f"{count} {name}" for name, count in cores.items())


def render_bins(rows: Sequence[ChipBin]) -> str:
    """Several bins of one chip, and how to tell which one a Mac has."""
    chip = rows[0].chip
    lines = [f"{chip} is sold in {len(rows)} bins:", ""]
    cells: list[tuple[str, ...]] = []
    for row in rows:
        first, *others = (describe_cores(cores) for cores in row.cpu_cores_options)
        sizes = ", ".join(map(str, row.memory_options_gb))
        cells.append(
            (str(row.gpu_cores), f"{row.memory_bandwidth_gb_s} GB/s", f"{sizes} GB", first)
        )
        cells += [("", "", "", f"or {other}") for other in others]
    lines += _columns(("GPU cores", "Bandwidth", "Memory", "CPU cores"), cells)
    return "\n".join([*lines, "", *_how_to_tell_apart(rows)])


def _how_to_tell_apart(rows: Sequence[ChipBin]) -> list[str]:
    lines = ["Which one a Mac has:"]
    if len({row.gpu_cores for row in rows}) > 1:
        lines.append("  ioreg -rc AGXAccelerator -d1 | grep gpu-core-count   prints its GPU cores;")
        lines.append("  so does the Apple menu > About This Mac > More Info > System Report.")
    sizes = [size for row in rows for size in row.memory_options_gb]
    if len(sizes) == len(set(sizes)):
        lines.append("  Its memory size determines it too.")
    if len({row.memory_bandwidth_gb_s for row in rows}) == 1:
        lines.append("  The memory bandwidth is the same.")
    return [*lines, "Choose one with --gpu-cores or --memory-gb."]


def render_table(rows: Sequence[ChipBin]) -> str:
    """The whole table, a line for each bin."""
    cells = [
        (
            row.chip,
            str(row.gpu_cores),
            str(row.memory_bandwidth_gb_s),
            ", ".join(map(str, row.memory_options_gb)),
            " or ".join(_short_cores(cores) for cores in row.cpu_cores_options),
            str(row.year),
        )
        for row in rows
    ]
    lines = _columns(("Chip", "GPU cores", "GB/s", "Memory (GB)", "CPU cores", "Since"), cells)
    legend = "S super, P performance, E efficiency. With sources: mlx-hwprobe table --csv"
    return "\n".join([*lines, "", legend])


def _short_cores(cores: Mapping[str, int]) -> str:
    return "+".join(f"{count}{name[0].upper()}" for name, count in cores.items())


def _columns(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *rows)
    ]


def render_csv(rows: Sequence[ChipBin]) -> str:
    """The whole table as CSV: lists within a cell are separated by semicolons."""
    import csv
    import io

    out = io.StringIO()
    names = list(rows[0].to_document())
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = row.to_document()
        cells["memory_options_gb"] = ";".join(map(str, row.memory_options_gb))
        cells["cpu_cores_options"] = ";".join(map(describe_cores, row.cpu_cores_options))
        writer.writerow(cells)
    return out.getvalue()


def render_measurement(measurement: BandwidthMeasurement, table_gb_s: float | None) -> str:
    """A measurement as a line for each kernel, and how it compares with Apple's figure."""
    what = _BACKENDS[measurement.backend]
    device = f"{measurement.device}, " if measurement.device else ""
    best = measurement.best
    lines = [f"Memory bandwidth: {best.median_gb_s:.1f} GB/s ({device}{what})", ""]
    lines += _columns(
        ("Kernel", "Median", "Lowest", "Highest", "Spread", "Runs"),
        [
            (
                runs.kernel,
                f"{runs.median_gb_s:.1f} GB/s",
                f"{min(runs.runs_gb_s):.1f}",
                f"{max(runs.runs_gb_s):.1f}",
                f"{runs.spread:.1%}",
                str(len(runs.runs_gb_s)),
            )
            for runs in measurement.kernels
        ],
    )
    if table_gb_s:
        lines += ["", f"{best.median_gb_s / table_gb_s:.0%} of Apple's {table_gb_s:g} GB/s."]
    return "\n".join(lines)
