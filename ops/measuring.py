"""What ops/compare, ops/series, ops/turn, ops/profile and ops/instructions share: programs, clusters of them, and tables."""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or
              Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quorate" / "target")


class Failed(Exception):
    """In words for whoever started this."""


def run(*command, env=None):
    """Runs a command to its end; returns what it wrote to stdout."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          env={**os.environ, **(env or {})})
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return done.stdout


def report(main):
    """Runs `main`; what fails is said in words."""
    try:
        main()
    except Failed as failed:
        sys.exit(f"{Path(sys.argv[0]).name}: {failed}")
    except KeyboardInterrupt:
        sys.exit(130)


def positive(text):
    """For argparse: a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def add_program_options(parser):
    parser.add_argument("--no-build", action="store_true", help="the programs are built already")
    parser.add_argument("--programs", type=Path, metavar="FOLDER", help="measure those in this folder, and build none")


def programs(options, needed):
    """The folder in which the programs are, built if that is asked for: where ./ops/build guided leaves them, or --programs."""
    folder = options.programs.resolve() if options.programs else TARGET / "guided"
    if not options.programs and not options.no_build:
        built = subprocess.run([ROOT / "ops" / "build", "guided", "floor"], env={**os.environ, "CARGO_TARGET_DIR": str(TARGET)})
        if built.returncode != 0:
            raise Failed("the programs could not be built; what is wrong stands above")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise Failed(f"{folder} has no {', '.join(missing)}; ./ops/build guided floor builds them")
    return folder


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next(int(line.split()[1]) // 1024 for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{os.cpu_count()} cores ({model}), {memory} MiB, Linux {os.uname().release}, load average {load}"


def commit():
    """What is checked out, and whether files differ from it."""
    try:
        return run("git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude", "*").strip()
    except (Failed, OSError):
        return "unknown"


def table(rows):
    """Lines of a table; the first row is its head."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    line = lambda row: "| " + " | ".join(str(text).ljust(width) for text, width in zip(row, widths)) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(rows[0]), rule] + [line(row) for row in rows[1:]])


def ms(us):
    return f"{us / 1000:.2f}"


def figures(found, workload):
    """Of what `quorate bench` said: goodput a second, p50 and p99 of what was done, and the counts of what was not."""
    ends = found["operations"].get(workload[:-1], {})
    if "done" not in ends:
        raise Failed(f"no {workload[:-1]} was done: {found['first_failure']}")
    others = {end: part["count"] for end, part in ends.items() if end != "done" and part["count"]}
    return found["done_per_second"], ends["done"]["p50_us"], ends["done"]["p99_us"], others


class Lab:
    """A cluster of programs in a folder."""

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder

    @classmethod
    @contextlib.contextmanager
    def made(cls, programs, nodes, shards=1, more=()):
        """One in a folder that goes with it."""
        with tempfile.TemporaryDirectory(prefix="quorate-lab-") as temporary:
            made = cls(programs, Path(temporary) / "lab")
            try:
                made.lab("up", "--nodes", nodes, *more)
                if shards > 1:
                    made.configure("shards", shards)
                yield made
            finally:
                if made.folder.exists():
                    made.lab("destroy")

    def configure(self, name, value):
        """Starts all nodes anew with another value of a setting."""
        self.lab("down")
        for config in sorted(self.folder.rglob("*.toml")):
            text = config.read_text()
            if re.search(r"^data *=", text, re.M):
                rest = re.sub(rf"^#? *{name} *=.*\n", "", text, flags=re.M)
                config.write_text(f"{name} = {value}\n{rest}")
        self.lab("up")

    def lab(self, *command):
        return run(self.programs / "quorate-lab", "--dir", self.folder, *command)

    def command(self, workload, *more):
        return [str(part) for part in (self.programs / "quorate", "--profile", self.folder / "client.toml", "-o", "jsonl",
                                       "bench", workload, *more)]

    def bench(self, workload, *more):
        return json.loads(run(*self.command(workload, *more)))

    def processes(self):
        """The process ids of its nodes."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if words[0].endswith("quorate-node") and any(str(self.folder) in word for word in words):
                    found[int(entry.name)] = words
        return found

    def resident_kib(self, what="VmRSS"):
        """Of the largest node; what is VmRSS, now, or VmHWM, the most since `forget_peak`."""
        return max((resident_kib(pid, what) for pid in self.processes()), default=0)

    def resident_mib(self):
        return self.resident_kib() // 1024

    def peak_mib(self):
        return self.resident_kib("VmHWM") // 1024

    def forget_peak(self):
        for pid in self.processes():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def repaired(self):
        """Waits until nothing is missing anywhere; says for how long, in seconds."""
        began = time.monotonic()
        run(self.programs / "quorate", "--profile", self.folder / "client.toml", "repair", "--wait", "--timeout", "30m")
        return time.monotonic() - began

    def cpu_s(self):
        return sum(cpu(pid) for pid in self.processes())

    def cost(self, workload, seconds, *more, warm_up=0):
        """One run: goodput, p50 and p99 in us, and processor time of all nodes for an operation in us."""
        began = self.cpu_s()
        found = self.bench(workload, "--skip-load", "--warm-up", f"{warm_up}s", "--time", f"{seconds}s", "--check", 0, *more)
        rate, p50, p99, _ = figures(found, workload)
        return rate, p50, p99, (self.cpu_s() - began) / max(rate * (seconds + warm_up), 1) * 1e6


def resident_kib(pid, what):
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+)", text)[1])
    return 0


def cpu(pid):
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0
