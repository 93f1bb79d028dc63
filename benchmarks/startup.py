"""Start-up of the commands that promise to answer at once: wall and CPU seconds of whole processes, medians of 20.

python benchmarks/startup.py
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import time
from importlib import metadata

RUNS = 20
COMMANDS = (
    ["--help"],
    ["--version"],
    ["plugins", "list"],
    ["plugins", "list", "--json"],
    ["ls", "models"],
    ["run", "--help"],
)


def measure(command: list[str]) -> tuple[float, float]:
    """Return wall and CPU seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure the commands in turn, so that a drift of the machine hits all alike."""
    program = shutil.which("crossmed")
    assert program, "install crossmed first"
    python = shutil.which("python") or "python"
    cases = {"python -c pass": [python, "-c", "pass"], "import torch": [python, "-c", "import torch"]}
    cases |= {"crossmed " + " ".join(command): [program, *command] for command in COMMANDS}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for number in range(RUNS + 1):
        for name, command in cases.items():
            result = measure(command)
            if number:  # the first round warms the file cache
                times[name].append(result)
    print(f"{len(list(metadata.distributions()))} distributions installed, {RUNS} runs")
    print(f"{'command':30} {'wall s':>8} {'CPU s':>8}")
    for name, results in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"{name:30} {wall:8.3f} {cpu:8.3f}")


if __name__ == "__main__":
    main()
