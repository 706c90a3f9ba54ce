"""What is written behind is written in order and whole, and what goes wrong there is told."""

from __future__ import annotations

import threading

import pytest

from onemask.video.threads import Behind


def test_calls_are_made_in_order_in_another_thread_and_are_done_when_the_block_ends():
    made = []
    with Behind(lambda item: made.append((item, threading.current_thread())), depth=2) as behind:
        for number in range(50):
            behind(number)
            if number == 20:
                behind.wait()
                assert len(made) == 21
    assert [number for number, _ in made] == list(range(50))
    assert threading.current_thread() not in {thread for _, thread in made}


def test_only_so_many_wait():
    going_on = threading.Event()
    with Behind(lambda item: going_on.wait(), depth=2) as behind:
        for number in range(3):  # one is being made
            behind(number)
        late = threading.Timer(0.05, going_on.set)
        late.start()
        behind(3)
        assert going_on.is_set()


@pytest.mark.parametrize("noticed_by", ["the next call", "wait", "the end"])
def test_an_error_is_raised_by_the_next_use_and_nothing_is_called_after_it(noticed_by):
    made = []

    def call(number):
        made.append(number)
        if number == 1:
            raise OSError("the disk is full")

    def use():
        with Behind(call) as behind:
            behind(0)
            behind(1)
            if noticed_by == "wait":
                behind.wait()
            while noticed_by == "the next call":
                behind(2)

    with pytest.raises(OSError, match="full"):
        use()
    assert made == [0, 1]


def test_an_error_of_the_block_goes_first_and_what_was_left_to_do_is_done():
    made = []

    def use():
        with Behind(made.append) as behind:
            behind(1)
            behind(2)
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert made == [1, 2]
