"""What should not be there: arrays with a flaw, numbers outside every domain, texts from the edges of Unicode."""

import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

FLAWS = (
    *("nan", "inf", "-inf", "zeros", "zero column", "huge", "tiny", "equal columns", "no rows", "no columns"),
    *("vector", "scalar", "cube", "bool", "int8", "int64", "uint64", "half", "bfloat16", "complex", "object", "text"),
    *("every other", "transposed", "read only", "list", "sparse", "gradient"),
)
numbers = st.sampled_from(
    [0, 1, 2, -1, 3, 7, 100, -(2**40), 2**70, 0.0, 0.5, 1.0, 1.5, -0.5, 1e-300, 1e300, math.nan, math.inf, -math.inf]
)
"""Numbers, whole or not, most of them outside the domain of anything."""

texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            *("", " ", "\t\n\r ", "\0", "a\0b", "\ud800", "a\udfffb", "\ufeff", "\ufeffword", "\r\n\r\n", "a\rb"),
            *("مرحبا بالعالم", "\u202eabc\u202c", "👩‍👩‍👧‍👦 🏳️‍🌈", "e\u0301" * 50, "Z" + "\u0300" * 300),
            *("<script>alert(1)</script>", "<|endoftext|>", "**_`# [x](javascript:1)`_**", "{{7*7}}", "%s%n", "=1+1"),
            *("\u2028\u2029", "\x1b[31mred", "\u00ad\u200b\u200d", "\U0010ffff", "ﷺ" * 20, "١٢٣", "a" * 3000),
        ]
    ),
    st.text(alphabet=st.characters(categories=["Cs", "Cc", "Cf", "Mn", "Zs", "So"]), max_size=20),
)


def flawed(flaw: str) -> list[Any]:
    """A matrix with this flaw alone: an array and a tensor, in double and single precision, where it can be done."""
    made = np.random.default_rng(0).standard_normal((4, 6))
    kinds = [made, made.astype(np.float32), torch.from_numpy(made), torch.from_numpy(made).float()]
    found = []
    for kind in kinds:
        try:
            found.append(_flawed(kind.copy() if isinstance(kind, np.ndarray) else kind.clone(), flaw))
        except (TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError):
            continue
    return found


@st.composite
def matrices(draw: st.DrawFn, most: int = 7) -> Any:
    """A small random matrix with up to three flaws, a tensor or an array (or what is neither)."""
    rows, columns = draw(st.integers(1, most)), draw(st.integers(1, most))
    made = np.random.default_rng(draw(st.integers(0, 99))).standard_normal((rows, columns))
    flaws = draw(st.lists(st.sampled_from(FLAWS), max_size=3))
    value: Any = torch.from_numpy(made.copy()) if draw(st.booleans()) else made
    if draw(st.booleans()):
        value = value.astype(np.float32) if isinstance(value, np.ndarray) else value.float()
    for flaw in flaws:
        # A flaw that cannot be done to what the others have left is no flaw.
        try:
            value = _flawed(value, flaw)
        except (TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError):
            continue
    return value


def _flawed(value: Any, flaw: str) -> Any:
    if flaw in ("nan", "inf", "-inf"):
        value[-1, 0] = float(flaw)
    elif flaw == "zeros":
        value = value * 0
    elif flaw == "zero column":
        value[:, -1] = 0
    elif flaw in ("huge", "tiny"):
        value = value * (1e300 if flaw == "huge" else 1e-300)
    elif flaw == "equal columns":
        value[:, -1] = value[:, 0]
    else:
        value = _shaped(value, flaw)
    return value


def _shaped(value: Any, flaw: str) -> Any:
    array = isinstance(value, np.ndarray)
    types = {"bool": "bool", "int8": "int8", "int64": "int64", "uint64": "uint64", "half": "float16"}
    types |= {"complex": "complex64", "bfloat16": "bfloat16"}
    if flaw in types:
        return value.astype(types[flaw]) if array else value.to(getattr(torch, types[flaw]))
    shapes = {"no rows": (0, value.shape[-1]), "no columns": (value.shape[0], 0)}
    if flaw in shapes:
        return value[:0] if flaw == "no rows" else value[:, :0]
    made = {
        "vector": lambda: value[0],
        "scalar": lambda: value[0, 0],
        "cube": lambda: value[None],
        "object": lambda: value.astype(object),
        "text": lambda: value.astype(str),
        "every other": lambda: value[:, ::2],
        "transposed": lambda: value.T,
        "list": lambda: value.tolist(),
        "sparse": lambda: value.to_sparse(),
        "gradient": lambda: value.requires_grad_(),
        "read only": lambda: np.broadcast_to(value[:1], value.shape),
    }
    return made[flaw]()
