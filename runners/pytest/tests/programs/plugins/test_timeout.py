"""pytest-timeout, by a signal and by a thread."""

import threading
import time

import pytest


@pytest.mark.timeout(60)
def test_in_time():
    pass


@pytest.mark.timeout(60, method="thread")
def test_in_time_by_a_thread():
    assert threading.active_count() == 2


@pytest.mark.timeout(0.3, method="signal")
def test_hangs():
    print("about to hang")
    time.sleep(1000)


@pytest.mark.timeout(0.3, method="thread")
def test_hangs_and_is_ended_by_a_thread():
    print("about to hang, too")
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass


@pytest.fixture
def slow():
    time.sleep(1000)


@pytest.mark.timeout(0.3)
def test_fixture_hangs(slow):
    pass
