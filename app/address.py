"""What a person chose on a page, kept in the page's address by short names that stay the same.

`bind="query-params"` puts the words of `format_func` into the address: it grows long, and a link breaks when a word is
changed.  `pick` writes the option's own name, and nothing at all for the default.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

T = TypeVar("T", str, int)


def pick(
    label: str,
    options: Sequence[T],
    key: str,
    *,
    place: Callable[..., Any] = st.selectbox,
    default: T | None = None,
    words: Callable[[Any], str] = str,
    **more: Any,
) -> T:
    """A choice among `options` (shown as `words(option)`), kept in the address as `?key=option`.

    `place` is the widget: `st.selectbox`, `st.segmented_control`, ...  Without a choice `default`, else the first
    option, is shown and left out of the address; it follows when the default changes, and a choice that is no longer
    offered is forgotten.
    """
    named = {str(option): option for option in options}
    first = options[0] if default is None else default
    state, written, untouched = st.session_state, f"{key}, as in the address", f"{key}, not chosen"
    asked = st.query_params.get(key)
    if asked in named and asked != state.get(written):  # a link was followed
        state[key] = named[asked]
    else:
        left_alone = untouched in state and state.get(key) == state[untouched]
        taken_back = asked is None and state.get(written) is not None  # a link without it was followed
        if state.get(key) not in options or left_alone or taken_back:
            state[key] = first
    chosen: T = place(label, options, key=key, format_func=words, **more)
    chosen = first if chosen is None else chosen
    state.pop(untouched, None)
    state[written] = None
    if chosen == first:
        state[untouched] = first
        if asked is not None:
            del st.query_params[key]
    else:
        state[written] = str(chosen)
        if asked != str(chosen):
            st.query_params[key] = str(chosen)
    return chosen
