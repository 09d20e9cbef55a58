"""Stop strings in text that comes in pieces."""

import pytest
from hypothesis import given
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


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), st.lists(st.text("ab", max_size=4), max_size=6))
def test_pieces_do_not_matter(stops, pieces):
    whole = "".join(pieces)
    places = [whole.find(stop) for stop in stops if stop in whole]
    text, found = run(stops, pieces)
    assert found == bool(places)
    if found:
        assert whole.startswith(text)
        assert len(text) in places
    else:
        assert text == whole


def test_text_that_cannot_be_a_stop_is_passed_on_at_once():
    matcher = StopStrings(["\n\n"])
    assert [matcher.feed(text) for text in ("one", "\n", "two", "\n", "\n")] == ["one", "", "\ntwo", "", ""]
