"""Time that a training step waits for a judge over HTTP, first without and then with cached replies.

    python benchmarks/judge.py

By default 128 answers are scored, 32 requests at a time, and the server takes 200 ms per reply. The server is the one
of the tests, a separate process on the loopback interface.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from grit_lightning.app import config
from grit_lightning.app.config import check
from grit_lightning.judge.chat.service import close_all
from grit_lightning.system.paths import conf_dir

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.chat_server import ChatServer


def ask(judge: Any, answers: list[str]) -> float:
    """Score all answers and return the seconds that took.

    Raises:
        RuntimeError: an answer was not scored.
    """
    start = time.perf_counter()
    futures = [judge.ask("How many dogs are there?", "2", answer) for answer in answers]
    if any(future.result() is None for future in futures):
        raise RuntimeError(f"an answer was not scored: {judge.last_failure}")
    return time.perf_counter() - start


def main() -> None:
    """Print the times of each repetition, then their medians and the lower bound."""
    parser = argparse.ArgumentParser(description="Measure how long a training step waits for a judge over HTTP.")
    parser.add_argument("--answers", type=int, default=128, help="answers of a step (default: 128)")
    parser.add_argument("--delay", type=float, default=0.2, help="seconds the server takes per reply (default: 0.2)")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at a time (default: 32)")
    parser.add_argument("--repeats", type=int, default=5, help="measured repetitions, after one warm-up (default: 5)")
    options = parser.parse_args()
    config.register()
    server = ChatServer()
    server.control(delay=options.delay)
    asked, known = [], []
    try:
        with tempfile.TemporaryDirectory() as folder:
            overrides = [
                "judge=local", "judge.model=any", f"judge.endpoint.url={server.url}", f"judge.cache.folder={folder}",
                f"judge.limits.concurrency={options.concurrency}",
            ]  # fmt: skip
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                judge = instantiate(check(compose("config", overrides))["judge"])
            for repeat in range(options.repeats + 1):
                answers = [f"{repeat} {number}" for number in range(options.answers)]
                seconds = ask(judge, answers)
                close_all()  # so that the second call reads the cache as a new run would
                again = ask(judge, answers)
                if repeat:
                    asked.append(seconds)
                    known.append(again)
                    print(f"asked {seconds:.3f} s   cached {again:.3f} s", flush=True)
            requests = server.stats()["requests"]
            close_all()
    finally:
        server.kill()
    floor = -(-options.answers // options.concurrency) * options.delay
    for name, values in (("asked", asked), ("cached", known)):
        print(f"{name:<7}{statistics.median(values):.3f} s (median; {min(values):.3f} to {max(values):.3f})")
    print(f"floor  {floor:.3f} s; {requests} requests for {options.answers * (options.repeats + 1)} answers")


if __name__ == "__main__":
    main()
