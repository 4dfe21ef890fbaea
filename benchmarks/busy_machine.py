"""Training with two threads beside other processes: threads that sleep while they wait, against threads that spin.

A thread of OpenMP that waits for the others spins by default. If another process has the core of one of them, the rest
burn theirs. `import llmsrec` sets OMP_WAIT_POLICY=PASSIVE if more processes want to run than there are cores. Steps of
the teacher are counted in processes of their own, with two threads, alone and beside `busy` processes that never wait.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.figures import Figure, run_benchmark

POLICIES = {"sleeping": "PASSIVE", "spinning": "ACTIVE"}


def steps_per_second(seconds: float, policy: str) -> float:
    """The result of `count` in a process with this policy."""
    env = os.environ | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": policy}
    command = [sys.executable, "-m", "benchmarks.busy_machine", "--count", str(seconds)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return float(done.stdout)


def count(seconds: float) -> float:
    """Steps per second of the teacher with the settings of params.yaml, after a warm-up."""
    from benchmarks.synthetic import synthetic_histories
    from llmsrec.core.config import load_section
    from llmsrec.sequential.trainer import CausalTrainer, TeacherConfig

    config = load_section(TeacherConfig, "teacher")
    train = synthetic_histories(5_000, 2_000)
    trainer = CausalTrainer(config.build_network(2_000), train, 2_000, config)
    trainer.step(0)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        steps += 1
        trainer.step(steps)
    return steps / (time.perf_counter() - start)


def figures(seconds: float = 20.0, busy: tuple[int, ...] = (0, 1, 2)) -> Iterator[Figure]:
    for number in busy:
        others = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)
        ]
        try:
            rates = {name: steps_per_second(seconds, policy) for name, policy in POLICIES.items()}
        finally:
            for process in others:
                process.kill()
                process.wait()
        shown = ", ".join(f"{name} {rate:.1f} steps/s" for name, rate in rates.items())
        print(f"beside {number} busy processes: {shown}", flush=True)
        if number:
            yield Figure(f"beside {number} busy", rates["sleeping"] / rates["spinning"], 2.0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        print(count(float(sys.argv[2])))
    else:
        run_benchmark(figures)
