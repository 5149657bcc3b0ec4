"""Tests of requests to stop: at once, after a protected section, and during the way out."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

from grit_lightning.system import stop
from grit_lightning.system.stop import Stopped, StopSignals

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def signals():
    handlers = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    found = StopSignals()
    for number in SIGNALS:  # a shell starts background jobs so that they ignore SIGINT
        signal.signal(number, signal.SIG_DFL)
    found.install()
    yield found
    found.resume()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_raises_like_ctrl_c_and_gives_the_exit_status_of_shells(signals, signum):
    with pytest.raises(KeyboardInterrupt) as stopped:
        send(signum)
    assert isinstance(stopped.value, Stopped)
    assert (str(stopped.value), stopped.value.status) == (signum.name, 128 + signum)
    assert signals.received == signum


def test_a_protected_section_is_not_interrupted(signals):
    signals.postpone()
    send(signal.SIGTERM)
    send(signal.SIGTERM)
    assert signals.received == signal.SIGTERM
    signals.resume()
    with pytest.raises(Stopped, match="SIGTERM"):
        signals.raise_received()


def test_without_a_signal_nothing_is_raised(signals):
    signals.postpone()
    signals.resume()
    signals.raise_received()


def test_a_second_ctrl_c_interrupts_a_protected_section(signals):
    signals.postpone()
    send(signal.SIGINT)
    with pytest.raises(Stopped):
        send(signal.SIGINT)


def test_a_protected_section_that_takes_too_long_is_interrupted(signals, monkeypatch):
    monkeypatch.setattr(stop, "GRACE", 0.05)
    signals.postpone()
    with pytest.raises(Stopped, match="SIGHUP"):
        send(signal.SIGHUP)
        time.sleep(30)


def test_a_section_that_ends_in_time_is_not_interrupted_later(signals, monkeypatch):
    monkeypatch.setattr(stop, "GRACE", 0.05)
    signals.postpone()
    send(signal.SIGHUP)
    signals.resume()
    time.sleep(0.1)


def test_further_signals_do_not_disturb_the_way_out(signals):
    with pytest.raises(Stopped):
        send(signal.SIGTERM)
    send(signal.SIGTERM)
    send(signal.SIGHUP)
    assert signals.received == signal.SIGTERM


def test_a_signal_that_the_process_ignores_stays_ignored():
    program = (
        "import os, signal; from grit_lightning.system.stop import stop_signals; stop_signals.install()\n"
        "os.kill(os.getpid(), signal.SIGHUP); print('still here')"
    )
    done = subprocess.run(
        ["nohup", sys.executable, "-c", program], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout) == (0, "still here\n")


def test_a_closed_terminal_does_not_prevent_the_run_from_being_saved(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from grit_lightning.system.stop import Stopped, stop_signals\n"
        "stop_signals.install(); Path(sys.argv[1], 'ready').touch()\n"
        "try: time.sleep(60)\n"
        "except Stopped as stopped:\n"
        "    print('saving', flush=True); print('saving', file=sys.stderr, flush=True)\n"
        "    Path(sys.argv[1], 'saved').write_text(str(stopped))"
    )
    terminal, end = pty.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-c", program, str(tmp_path)]
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, preexec_fn=take_terminal)
    os.close(end)
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "saved").read_text() == "SIGHUP"
