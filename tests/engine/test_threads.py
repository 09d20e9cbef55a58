"""The parallel map."""

import threading

import pytest

from gpt2.engine.native.threads import map_in_threads


@pytest.mark.parametrize("max_threads", [1, 2, 50])
def test_results_are_in_the_order_of_the_items(max_threads):
    assert map_in_threads(lambda x: x * x, list(range(20)), max_threads) == [x * x for x in range(20)]
    assert map_in_threads(len, [], max_threads) == []


def test_items_are_processed_in_parallel():
    barrier = threading.Barrier(3, timeout=20)  # each thread waits for the two others
    map_in_threads(lambda _: barrier.wait(), range(3), 3)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_first_items_error_is_raised_and_stops_the_others(error):
    started = []

    def work(item):
        started.append(item)
        raise error(item)

    with pytest.raises(error) as caught:
        map_in_threads(work, range(1000), 2)
    assert caught.value.args == (min(started),) and len(started) <= 2


def test_without_further_threads_the_calling_thread_does_all_work(monkeypatch):
    def fail_to_start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail_to_start)
    assert map_in_threads(str, range(5), 4) == ["0", "1", "2", "3", "4"]
