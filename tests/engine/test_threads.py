"""Things done in threads side by side."""

import threading

import pytest

from gpt2.engine.native.threads import map_in_threads


@pytest.mark.parametrize("most", [1, 2, 50])
def test_results_are_in_the_order_of_the_items(most):
    assert map_in_threads(lambda x: x * x, list(range(20)), most) == [x * x for x in range(20)]
    assert map_in_threads(len, [], most) == []


def test_they_work_side_by_side():
    meeting = threading.Barrier(3, timeout=20)  # each waits for the two others
    map_in_threads(lambda _: meeting.wait(), range(3), 3)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_is_the_first_items_and_ends_the_others(error):
    begun = []

    def work(item):
        begun.append(item)
        raise error(item)

    with pytest.raises(error) as caught:
        map_in_threads(work, range(1000), 2)
    assert caught.value.args == (min(begun),) and len(begun) <= 2


def test_where_the_system_grants_no_threads_one_does_it_all(monkeypatch):
    def refused(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert map_in_threads(str, range(5), 4) == ["0", "1", "2", "3", "4"]
