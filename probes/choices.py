"""Routing decisions as arrays: which experts each token went to, with its label, its type and its group."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped
from numba import njit

MOST = 1 << 20
"""Experts that a router may have."""

Codes = Sequence[Any] | np.ndarray | pd.Series | pd.Categorical


class Choices(NamedTuple):
    """Tokens, each with one or more experts; the experts of token t are expert[start[t] : start[t + 1]]."""

    expert: Int[np.ndarray, " n_slots"]
    start: Int[np.ndarray, " n_tokens_plus_1"]
    label: Int[np.ndarray, " n_tokens"]
    type: Int[np.ndarray, " n_tokens"]
    group: Int[np.ndarray, " n_tokens"]
    """Group of each token; -1 everywhere if none were given."""
    label_names: np.ndarray
    type_names: np.ndarray
    n_experts: int

    @property
    def n_slots(self) -> int:
        """Entries: the sum over tokens of how many experts each went to."""
        return len(self.expert)

    @property
    def n_tokens(self) -> int:
        """Tokens."""
        return len(self.label)

    @property
    def n_groups(self) -> int:
        """Groups; 0 if none were given."""
        return int(self.group.max(initial=-1)) + 1

    @property
    def n_labels(self) -> int:
        """Labels that occur."""
        return len(self.label_names)

    def of_groups(self) -> bool:
        """Whether the label is a property of the whole group (a document's domain), not of a token."""
        if not self.n_groups:
            return False
        first = np.full(self.n_groups, -1, dtype=self.label.dtype)
        first[self.group] = self.label
        return self.n_groups > 1 and bool((first[self.group] == self.label).all())


def choices(
    experts: Any,
    labels: Codes,
    types: Codes,
    groups: Codes | None = None,
    tokens: Codes | None = None,
    n_experts: int | None = None,
) -> Choices:
    """Check and encode.

    Either `experts` is (n_tokens, k) and the others (n_tokens,), or all are one entry a (token, slot) and `tokens` says
    which entries are slots of the same token; without it every entry is a token of its own.  An expert of -1 is a slot
    that nobody got; a token without any is left out.
    Raises ValueError, in a sentence, for empty arrays, different lengths, missing values, experts that are no whole
    numbers in -1..n_experts-1, and tokens whose slots disagree on label, type or group or name an expert twice.
    """
    try:
        index = np.asarray(experts)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"experts is no array of whole numbers but {type(experts).__name__}; give (entries,) or (tokens, k)"
        ) from error
    if index.ndim not in (1, 2):
        raise ValueError(f"experts has {index.ndim} dimensions; give (entries,) or (tokens, k)")
    if index.size == 0:
        raise ValueError("experts is empty; give at least one routed token")
    if n_experts is not None and not (isinstance(n_experts, Integral) and 1 <= n_experts <= MOST):
        raise ValueError(f"n_experts={n_experts}; give a whole number from 1 to {MOST:,}")
    index, n_experts = _whole(index, n_experts)
    named = {"labels": labels, "types": types, "groups": groups, "tokens": tokens}
    given = {name: values for name, values in named.items() if values is not None}
    for name, values in given.items():
        if len(values) != len(index):
            raise ValueError(f"{name} has {len(values)} entries, experts has {len(index)}; they must be as many")
    if index.ndim == 2 and tokens is not None:
        raise ValueError("experts is (tokens, k), so each row is a token already; leave `tokens` out")
    coded = {name: _coded(name, values) for name, values in given.items()}
    if (index < 0).any():
        index, coded = _taken(index, coded)
    if "tokens" in coded:
        order, first, start = _gathered(coded.pop("tokens")[0])
        index = index[order]
        for name, (code, names) in coded.items():
            sorted_code = code[order]
            _same_in_token(name, sorted_code, start, names)
            coded[name] = sorted_code[first], names
    else:
        start = np.arange(len(index) + 1) * (index.shape[1] if index.ndim == 2 else 1)
    expert = np.ascontiguousarray(index.ravel(), dtype=np.int32)
    if (twice := _repeated(expert, start, n_experts)) >= 0:
        raise ValueError(f"token {twice} names an expert twice; the slots of one token must be different experts")
    (label, label_names), (kind, type_names) = coded["labels"], coded["types"]
    group = coded["groups"][0] if groups is not None else np.full(len(label), -1, dtype=np.int32)
    return Choices(expert, start, label, kind, group, label_names, type_names, n_experts)


def _whole(index: np.ndarray, n_experts: int | None) -> tuple[np.ndarray, int]:
    if not np.issubdtype(index.dtype, np.integer):
        as_float = pd.to_numeric(pd.Series(index.ravel()), errors="coerce").to_numpy(dtype=np.float64)
        if not np.isfinite(as_float).all() or (as_float != np.floor(as_float)).any():
            wrong = index.ravel()[~(np.isfinite(as_float) & (as_float == np.floor(as_float)))][0]
            raise ValueError(f"experts holds {wrong!r}; experts are whole numbers from 0")
        index = as_float.astype(np.int64).reshape(index.shape)
    low, high = int(index.min()), int(index.max())
    if low < -1 or high < 0:
        raise ValueError(f"experts holds {low}..{high}; experts are numbered from 0, and -1 is a slot that nobody got")
    if high >= MOST:
        raise ValueError(f"experts holds {high}; experts are numbered from 0, and no router has {MOST:,}")
    if n_experts is not None and high >= n_experts:
        raise ValueError(f"experts holds {high}, but n_experts={n_experts}; experts are numbered from 0")
    return index, high + 1 if n_experts is None else n_experts


def _taken(index: np.ndarray, coded: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """The slots that an expert got, one entry each, and the values that are left."""
    if index.ndim == 2:
        coded = coded | {"tokens": (np.arange(len(index)), np.arange(len(index)))}
    row, *column = np.nonzero(index >= 0)
    left = {}
    for name, (code, names) in coded.items():
        used, again = np.unique(code[row], return_inverse=True)
        left[name] = again.astype(np.int32), names[used]
    return index[(row, *column)], left


def _coded(name: str, values: Codes) -> tuple[Int[np.ndarray, " n"], np.ndarray]:
    """Codes and the sorted distinct values (categories that do not occur are left out)."""
    if getattr(values, "ndim", 1) != 1:
        raise ValueError(f"{name} has {np.ndim(values)} dimensions; give one entry a token")
    code, distinct = pd.factorize(pd.Series(values), sort=False)
    if (code < 0).any():
        where = int(np.flatnonzero(code < 0)[0])
        raise ValueError(
            f"{name} has {int((code < 0).sum())} missing entries, the first at {where}; "
            "leave these tokens out or give them a value of their own"
        )
    names = np.asarray(distinct)
    order = np.argsort(names if names.dtype != object else names.astype(str), kind="stable")
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order))
    return rank[code], names[order]


def _gathered(token: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order that brings the slots of a token together, the first slot of each token, and where tokens start."""
    order = np.argsort(token, kind="stable") if (np.diff(token) < 0).any() else np.arange(len(token))
    first = np.flatnonzero(np.diff(token[order], prepend=-1))
    return order, first, np.append(first, len(token))


def _same_in_token(name: str, code: np.ndarray, start: np.ndarray, names: np.ndarray) -> None:
    spread = np.repeat(code[start[:-1]], np.diff(start))
    if (spread != code).any():
        at = int(np.flatnonzero(spread != code)[0])
        raise ValueError(f"the slots of one token have two {name}: {names[spread[at]]!r} and {names[code[at]]!r}")


@njit(cache=True)
def _repeated(expert: np.ndarray, start: np.ndarray, n_experts: int) -> int:
    """The first token with one expert twice, or -1."""
    last = np.full(n_experts, -1, dtype=np.int64)
    for t in range(len(start) - 1):
        for j in range(start[t], start[t + 1]):
            if last[expert[j]] == t:
                return t
            last[expert[j]] = t
    return -1


@njit(cache=True)
def cross(
    expert: Shaped[np.ndarray, " n_slots"],
    start: Shaped[np.ndarray, " n_tokens_plus_1"],
    code: Shaped[np.ndarray, " n_tokens"],
    table: Shaped[np.ndarray, "n_codes n_experts"],
) -> None:
    """Add to table[code, expert] one for every slot."""
    for t in range(len(code)):
        for j in range(start[t], start[t + 1]):
            table[code[t], expert[j]] += 1
