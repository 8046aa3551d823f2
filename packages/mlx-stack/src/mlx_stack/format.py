"""Quantities as people read them."""

from collections.abc import Mapping

_MINUTE_S = 60
_HOUR_S = 60 * _MINUTE_S
_DAY_S = 24 * _HOUR_S
_GB = 10**9
_MB = 10**6
_KB = 10**3


def format_bytes(count: int | None) -> str:
    """`4.9 GB`, `320 MB` or `4 kB`, of memory too: decimal, as files have it; `?` if unknown."""
    if count is None:
        return "?"
    if count >= _GB:
        return f"{count / _GB:.1f} GB"
    if 0 < count < _MB:
        return f"{count / _KB:.0f} kB"
    return f"{count / _MB:.0f} MB"


def format_seconds(seconds: float | None) -> str:
    """`340 ms` or `2.1 s`, for what usually takes less than a minute; "" if unknown."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def format_duration(seconds: float) -> str:
    """`42 s`, `3 min`, `5 h 20 min` or `12 d 4 h`: the two largest units that matter."""
    whole = int(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def describe_hardware(profile: Mapping[str, object]) -> str:
    """One line for a hardware profile: `M4 Max · 40 GPU cores · 128 GB · 546 GB/s`."""
    parts = [str(profile.get("chip") or "Unknown machine")]
    if profile.get("gpu_cores"):
        parts.append(f"{profile['gpu_cores']} GPU cores")
    if profile.get("memory_gb"):
        parts.append(f"{profile['memory_gb']} GB")
    if profile.get("memory_bandwidth_gb_s"):
        parts.append(f"{profile['memory_bandwidth_gb_s']} GB/s")
    return " · ".join(parts)
