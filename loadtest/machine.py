"""The machine under the test: what it is, and what it did besides the test while a run went on."""

import os
import resource
import subprocess
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
        other = end.busy - start.busy - (end.generator - start.generator) - server_seconds
        return Disturbance((end.steal - start.steal) / total, max(other, 0.0) / total)

    def degree(self) -> float:
        """Above 1 a run is disturbed."""
        return max(self.steal / MAX_STEAL, self.other / MAX_OTHER)

    def __str__(self) -> str:
        return f"steal {self.steal:.1%}, other processes {self.other:.1%}"


def process_seconds(pid: int) -> float:
    """The processor seconds of a process, of its finished threads too."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


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
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()


TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

MAX_STEAL = 0.01
"""Above this share of the machine stolen, a run is disturbed."""
MAX_OTHER = 0.05
"""Above this share of the machine used by other processes, a run is disturbed."""
