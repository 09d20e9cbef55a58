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
    queue = RowQueue(rows([1, 9, 3, 5, 99]), RowNumberSet())
    assert [row.number for row in queue.take(2)] == [1, 3]
    assert [row.number for row in queue.take(9)] == [4, 2, 0]
    assert queue.take(1) == []


def test_no_more_is_read_than_is_held_and_no_row_is_left_behind(monkeypatch):
    """However short a row is among longer ones, and however many there are."""
    monkeypatch.setattr(row_queue, "MIN_QUEUED_ROWS", 8)
    rng = random.Random(1)
    read = 0
    finished_numbers = RowNumberSet()
    running = []

    def counted():
        nonlocal read
        for row in rows([1] + [50] * 5000):
            read += 1
            yield row

    queue = RowQueue(counted(), finished_numbers)
    max_above = 0
    while taken := queue.take(3 - len(running)) or running:
        running += [row for row in taken if row not in running]
        finished_numbers.add(running.pop(rng.randrange(len(running))).number)
        assert read <= finished_numbers.below + row_queue.MAX_LEAD * 8 + 1
        max_above = max(max_above, len(finished_numbers.above))
    assert len(finished_numbers) == finished_numbers.below == 5001 and 8 < max_above <= 32


def test_what_was_lost_comes_again_and_what_has_ended_does_not():
    finished_numbers = RowNumberSet()
    finished_numbers.add(1)
    finished_numbers.add(3, 2)
    queue = RowQueue(rows([1] * 6), finished_numbers)
    taken = queue.take(6)
    assert [row.number for row in taken] == [0, 2, 5]
    queue.give_back(taken[1:])
    assert [row.number for row in queue.take(6)] == [2, 5]


def test_ended_rows_take_no_memory_once_those_before_them_have_ended():
    finished_numbers, numbers = RowNumberSet(), list(range(1000))
    random.Random(2).shuffle(numbers)
    for number in numbers:
        assert number not in finished_numbers
        finished_numbers.add(number)
        assert number in finished_numbers
    assert (finished_numbers.below, finished_numbers.above, len(finished_numbers)) == (1000, set(), 1000)
