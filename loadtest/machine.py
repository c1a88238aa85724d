"""The machine under the test: what it is, and what it did besides the test while a run went on."""

import math
import os
import resource
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Clock:
    """Processor seconds since the machine started, and those of finished children and of this process."""

    total: float
    busy: float
    steal: float
    generator: float

    @staticmethod
    def read() -> "Clock":
        """Now."""
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
        ticks = [int(field) / TICKS_PER_SECOND for field in line.split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
        generator = 0.0
        for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF):
            usage = resource.getrusage(who)
            generator += usage.ru_utime + usage.ru_stime
        return Clock(sum(ticks), user + nice + system + irq + softirq, steal, generator)


@dataclass(frozen=True)
class Disturbance:
    """Shares of the machine that a run did not get."""

    steal: float
    """What the hypervisor gave to others."""
    other: float
    """What processes took that are neither the server nor the load generator."""

    @staticmethod
    def between(start: Clock, end: Clock, server_seconds: float) -> "Disturbance":
        """From one moment to another, between which the server used so many processor seconds."""
        total = end.total - start.total
        if total <= 0:
            # Not every machine counts what it does.
            return Disturbance(math.nan, math.nan)
        other = end.busy - start.busy - (end.generator - start.generator) - server_seconds
        return Disturbance((end.steal - start.steal) / total, max(other, 0.0) / total)

    def degree(self) -> float:
        """Above 1 a run is disturbed; not a number where nobody knows."""
        return max(self.steal / MAX_STEAL, self.other / MAX_OTHER)

    def __str__(self) -> str:
        if math.isnan(self.steal):
            return "steal and other processes unknown"
        return f"steal {self.steal:.1%}, other processes {self.other:.1%}"


def process_seconds(pid: int) -> float:
    """The processor seconds of a process and of all that it started, of their finished threads and children too."""
    stats = _stats()
    # User and system time: its own, and that of the children that it has waited for.
    ticks = sum(int(field) for member in _tree(pid, stats) for field in stats[member][11:15])
    return ticks / TICKS_PER_SECOND


def tree(pid: int) -> set[int]:
    """A process and all that it started, directly or not, as far as they live."""
    return _tree(pid, _stats())


def _tree(pid: int, stats: dict[int, list[str]]) -> set[int]:
    # By session too: a process whose parent is gone has another one.
    members = {member for member, fields in stats.items() if member == pid or int(fields[3]) == pid}
    found = members
    while found:
        found = {member for member, fields in stats.items() if int(fields[1]) in found} - members
        members |= found
    return members


def _stats() -> dict[int, list[str]]:
    """What /proc says of every process, from its state on."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            text = path.read_text(encoding="utf-8", errors="replace")
            stats[int(path.parent.name)] = text.rpartition(")")[2].split()
    return stats


def peak_memory(pid: int) -> int:
    """The bytes of memory that a process had resident at its most."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def description() -> dict[str, object]:
    """The processor, its cores, and the revision that is tested."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else os.uname().machine,
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "revision": _git("rev-parse", "--short=12", "HEAD") or "unknown",
        "modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
    except FileNotFoundError:
        return ""


TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

MAX_STEAL = 0.01
"""Above this share of the machine stolen, a run is disturbed."""
MAX_OTHER = 0.05
"""Above this share of the machine used by other processes, a run is disturbed."""
