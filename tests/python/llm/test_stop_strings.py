from hypothesis import given
from hypothesis import strategies as st

from inflight.stop_strings import StopStringFilter

short_text = st.text(alphabet="ab c", max_size=20)
stop_strings = st.lists(st.text(alphabet="ab c", min_size=1, max_size=4), max_size=3)


def cut_at_first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Character by character: the first position at which a stop string ends, the longest one there."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(pieces=st.lists(short_text, max_size=8), stops=stop_strings)
def test_the_result_does_not_depend_on_how_the_text_arrives(pieces, stops):
    stop_filter = StopStringFilter(stops)
    passed = "".join(stop_filter.push(piece) for piece in pieces) + stop_filter.push("", finished=True)
    assert (passed, stop_filter.matched) == cut_at_first_stop("".join(pieces), stops)


@given(pieces=st.lists(short_text, max_size=8), stops=stop_strings)
def test_nothing_is_passed_on_that_a_stop_string_takes_back(pieces, stops):
    stop_filter = StopStringFilter(stops)
    passed = ""
    for piece in pieces:
        passed += stop_filter.push(piece)
        assert cut_at_first_stop("".join(pieces), stops)[0].startswith(passed)


def test_text_that_cannot_start_a_stop_string_is_passed_on_at_once():
    stop_filter = StopStringFilter(["</answer>"])
    assert stop_filter.push("Paris. <") == "Paris. "
    assert stop_filter.push("b> </ans") == "<b> "
    assert stop_filter.push("", finished=True) == "</ans"


def test_passed_over_text_cannot_be_the_start_of_a_match():
    stop_filter = StopStringFilter(["ab"])
    assert stop_filter.pass_on("a") == "a"
    assert stop_filter.push("b") == "b"
    assert stop_filter.matched is None
