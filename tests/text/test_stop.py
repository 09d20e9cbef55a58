"""Stop strings in text that comes in pieces."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpt2.text.stop import StopStrings


def run(stops, pieces):
    matcher = StopStrings(stops)
    out = [matcher.feed(piece) for piece in pieces]
    return "".join([*out, matcher.finish()]), matcher.found


@pytest.mark.parametrize(
    "stops, pieces, expected",
    [
        ([], ["a", "b"], ("ab", False)),
        (["b"], ["abc"], ("a", True)),
        (["END"], ["the E", "N", "D."], ("the ", True)),
        (["END"], ["the E", "N"], ("the EN", False)),
        (["aab"], ["aaa", "b"], ("a", True)),  # the match begins inside a failed one
        (["cd", "bcx"], ["abc", "d"], ("ab", True)),
        (["x", "abx"], ["ab", "x"], ("", True)),  # the one that begins first
    ],
)
def test_examples(stops, pieces, expected):
    assert run(stops, pieces) == expected


def one_character_at_a_time(stops, text):
    """The obvious way: what is there when the first stop string is complete, without the longest that ends there."""
    for end in range(1, len(text) + 1):
        if ending := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(map(len, ending))], True
    return text, False


WORDS = st.text("ab", min_size=1, max_size=4)


@given(st.lists(WORDS, max_size=4), st.lists(st.text("ab", max_size=5), max_size=8))
@example(["abb", "b"], ["ab", "b"])  # the one that begins later is complete first
@example(["abb", "b"], ["abb"])
def test_where_the_text_is_cut_does_not_matter(stops, pieces):
    assert run(stops, pieces) == one_character_at_a_time(stops, "".join(pieces))


@given(st.lists(WORDS, min_size=1, max_size=3), st.lists(st.text("abc", max_size=4), max_size=6))
def test_nothing_is_held_back_but_what_may_begin_a_stop(stops, pieces):
    matcher, fed, passed = StopStrings(stops), "", ""
    for piece in pieces:
        fed, passed = fed + piece, passed + matcher.feed(piece)
        if matcher.found:
            return
        held = fed.removeprefix(passed)
        assert passed + held == fed
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)


def test_text_that_cannot_be_a_stop_is_passed_on_at_once():
    matcher = StopStrings(["\n\n"])
    assert [matcher.feed(text) for text in ("one", "\n", "two", "\n", "\n")] == ["one", "", "\ntwo", "", ""]
