"""The only place that knows how sizes and rates are written for people.

Decimal units, as disks and networks are sold.
"""

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def size(number: float) -> str:
    """Return a number of bytes with three digits: `999 B`, `1.0 kB`, `62.9 MB`, `412 GB`."""
    if abs(number) < 999.5:
        return f"{number:.0f} B"
    value = number / 1000
    for unit in _UNITS:
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if abs(value) >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} EB"


def rate(number: float) -> str:
    """Return bytes a second: `41.0 MB/s`."""
    return f"{size(number)}/s"
