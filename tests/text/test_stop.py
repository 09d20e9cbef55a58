"""Stop strings in text that arrives in chunks."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpt2.text.stop import StopStrings


def run(stops, chunks):
    matcher = StopStrings(stops)
    texts = [matcher.feed(chunk) for chunk in chunks]
    return "".join([*texts, matcher.finish()]), matcher.has_stopped


@pytest.mark.parametrize(
    "stops, chunks, expected",
    [
        ([], ["a", "b"], ("ab", False)),
        (["b"], ["abc"], ("a", True)),
        (["END"], ["the E", "N", "D."], ("the ", True)),
        (["END"], ["the E", "N"], ("the EN", False)),
        (["aab"], ["aaa", "b"], ("a", True)),  # the match starts inside a failed one
        (["cd", "bcx"], ["abc", "d"], ("ab", True)),
        (["x", "abx"], ["ab", "x"], ("", True)),  # both are complete together: the longest wins
    ],
)
def test_examples(stops, chunks, expected):
    assert run(stops, chunks) == expected


def one_character_at_a_time(stops, text):
    """The oracle: cut the text as soon as a stop string is complete, and drop the longest one that ends there."""
    for end in range(1, len(text) + 1):
        if ending := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(map(len, ending))], True
    return text, False


WORDS = st.text("ab", min_size=1, max_size=4)


@given(st.lists(WORDS, max_size=4), st.lists(st.text("ab", max_size=5), max_size=8))
@example(["abb", "b"], ["ab", "b"])  # the one that starts later is complete first
@example(["abb", "b"], ["abb"])
def test_chunk_boundaries_do_not_matter(stops, chunks):
    assert run(stops, chunks) == one_character_at_a_time(stops, "".join(chunks))


@given(st.lists(WORDS, min_size=1, max_size=3), st.lists(st.text("abc", max_size=4), max_size=6))
def test_only_a_possible_start_of_a_stop_string_is_held_back(stops, chunks):
    matcher = StopStrings(stops)
    fed = passed = ""
    for chunk in chunks:
        fed += chunk
        passed += matcher.feed(chunk)
        if matcher.has_stopped:
            return
        held = fed.removeprefix(passed)
        assert passed + held == fed
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)


def test_text_that_cannot_be_a_stop_string_is_passed_on_immediately():
    matcher = StopStrings(["\n\n"])
    assert [matcher.feed(text) for text in ("one", "\n", "two", "\n", "\n")] == ["one", "", "\ntwo", "", ""]
