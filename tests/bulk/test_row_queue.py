"""Which rows come next."""

import random

from gpt2.bulk import row_queue
from gpt2.bulk.row_queue import RowNumberSet, RowQueue
from gpt2.bulk.rows import JobRow
from gpt2.request import Request


def rows(lengths):
    return (JobRow(number, number, (Request("the", length),)) for number, length in enumerate(lengths))


def test_the_longest_of_those_that_are_held_comes_first(monkeypatch):
    monkeypatch.setattr(row_queue, "MIN_QUEUED_ROWS", 4)
    ahead = RowQueue(rows([1, 9, 3, 5, 99]), RowNumberSet())
    assert [row.number for row in ahead.take(2)] == [1, 3]
    assert [row.number for row in ahead.take(9)] == [4, 2, 0]
    assert ahead.take(1) == []


def test_no_more_is_read_than_is_held_and_no_row_is_left_behind(monkeypatch):
    """However short a row is among longer ones, and however many there are."""
    monkeypatch.setattr(row_queue, "MIN_QUEUED_ROWS", 8)
    rng, read, ended, running = random.Random(1), 0, RowNumberSet(), []

    def counted():
        nonlocal read
        for row in rows([1] + [50] * 5000):
            read += 1
            yield row

    ahead, most = RowQueue(counted(), ended), 0
    while taken := ahead.take(3 - len(running)) or running:
        running += [row for row in taken if row not in running]
        ended.add(running.pop(rng.randrange(len(running))).number)
        assert read <= ended.below + row_queue.MAX_LEAD * 8 + 1
        most = max(most, len(ended.above))
    assert len(ended) == ended.below == 5001 and 8 < most <= 32


def test_what_was_lost_comes_again_and_what_has_ended_does_not():
    ended = RowNumberSet()
    ended.add(1)
    ended.add(3, 2)
    ahead = RowQueue(rows([1] * 6), ended)
    taken = ahead.take(6)
    assert [row.number for row in taken] == [0, 2, 5]
    ahead.give_back(taken[1:])
    assert [row.number for row in ahead.take(6)] == [2, 5]


def test_ended_rows_take_no_memory_once_those_before_them_have_ended():
    ended, numbers = RowNumberSet(), list(range(1000))
    random.Random(2).shuffle(numbers)
    for number in numbers:
        assert number not in ended
        ended.add(number)
        assert number in ended
    assert (ended.below, ended.above, len(ended)) == (1000, set(), 1000)
