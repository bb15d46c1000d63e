"""What is chosen on a page stands in its address under short names, and an address opens what was chosen."""

from collections.abc import Callable

from streamlit.testing.v1 import AppTest


def small() -> None:
    """A page with two choices, the default of the second given by the first, in the words of a catalogue."""
    import streamlit as st

    from app.address import pick

    words = {"a": "the first of all options", "b": "another (10%)", "c": "a third, with signs & words"}
    first = pick("First", list(words), "first", words=words.__getitem__)
    second = pick("Second", ["a", "b", "c"], "second", default="a" if first == "a" else "b")
    number = pick("Number", [2, 3], "number", place=st.segmented_control)
    st.text(f"{first}{second}{number}")


def shown(test: AppTest) -> str:
    assert not test.exception
    return str(test.text[0].value)


def address(test: AppTest) -> dict[str, str]:
    return {key: value[0] if isinstance(value, list) else value for key, value in dict(test.query_params).items()}


def opened(script: Callable[[], None] = small, **query: str) -> AppTest:
    test = AppTest.from_function(script)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


def test_defaults_are_left_out_and_choices_are_written_by_name() -> None:
    test = opened()
    assert (shown(test), address(test)) == ("aa2", {})
    test.selectbox(key="first").set_value("c").run()
    assert (shown(test), address(test)) == ("cb2", {"first": "c"}), "the second followed its default"
    test.segmented_control(key="number").set_value(3).run()
    test.selectbox(key="second").set_value("c").run()
    assert (shown(test), address(test)) == ("cc3", {"first": "c", "second": "c", "number": "3"})
    test.selectbox(key="first").set_value("a").run()
    assert (shown(test), address(test)) == ("ac3", {"second": "c", "number": "3"}), "a choice stands"


def test_the_address_opens_the_same_state_in_a_fresh_session() -> None:
    test = opened()
    test.selectbox(key="first").set_value("b").run()
    test.segmented_control(key="number").set_value(3).run()
    again = opened(**address(test))
    assert shown(again) == shown(test) == "bb3" and address(again) == address(test)


def test_a_link_followed_later_is_obeyed_and_nonsense_is_not() -> None:
    test = opened(first="b")
    test.query_params["first"] = "c"
    assert shown(test.run()) == "cb2"
    del test.query_params["first"]
    assert (shown(test.run()), address(test)) == ("aa2", {})
    assert shown(opened(first="<script>", number="x")) == "aa2"
