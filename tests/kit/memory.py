"""What a process takes of the machine's memory."""

from pathlib import Path
from typing import Final

NOW: Final = "VmRSS"
PEAK: Final = "VmHWM"


def rss_mb(pid: int, field: str = NOW) -> float:
    """Resident memory of a process, MB. Args: field: NOW or PEAK."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1_024 / 1e6


def forget_peak(pid: int) -> None:
    """Has a process's PEAK begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
