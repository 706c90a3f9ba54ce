"""Graceful Ctrl-C."""

import os
import signal
import threading

import pytest

from onemask.interruption import stop_asked


def handlers() -> list:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number, caplog):
    before = handlers()

    def interrupted_twice() -> None:
        with stop_asked("frame") as asked:
            assert not asked.is_set()
            os.kill(os.getpid(), number)
            assert asked.wait(10)
            os.kill(os.getpid(), number)
            threading.Event().wait(10)  # where the second one is raised

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert "stopping after this frame; press Ctrl-C again to stop at once" in caplog.text
    assert handlers() == before


def test_a_handler_that_python_does_not_know_is_left_alone(monkeypatch):
    """`signal.signal` returns None for one that was set by another program's code, and does not take None back."""
    real, given = signal.signal, []

    def of_an_embedding_program(number, handler):
        given.append(handler)
        real(number, handler)

    before = handlers()
    monkeypatch.setattr(signal, "signal", of_an_embedding_program)
    with stop_asked("frame"):
        pass
    monkeypatch.undo()
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)
    assert None not in given


def test_in_another_thread_nothing_is_caught():
    before, seen = handlers(), []

    def work() -> None:
        with stop_asked("frame") as asked:
            seen.append((asked.is_set(), handlers() == before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]
