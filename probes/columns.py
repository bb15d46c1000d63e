"""A dictionary seen as unit columns, read block by block from memory, from disk or from a device."""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Num, Shaped
from scipy.sparse import issparse
from torch import Tensor

READ = 4096
"""Columns read at a time when only sums are wanted."""


def real_matrix(values: Shaped[Tensor, "rows columns"] | Shaped[np.ndarray, "rows columns"], what: str) -> Tensor:
    """The matrix in double precision; ValueError where it is none, has no entry, or holds what is no finite number."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        values = torch.from_numpy(values.astype(np.float64))
    if not isinstance(values, Tensor) or values.is_complex() or values.layout != torch.strided:
        raise ValueError(f"{what} is a dense matrix of real numbers, a tensor or an array")
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"{what} is a matrix with entries, not of shape {tuple(values.shape)}")
    plain = values.detach().double()
    if not bool(plain.isfinite().all()):
        row = int((~plain.isfinite()).any(dim=1).nonzero()[0, 0])
        raise ValueError(f"{what} holds NaN or infinity, first in row {row}; leave that out")
    return plain


class Columns:
    """Unit-norm columns of V (d_model, n_features), without a copy of V.

    Accepts tensors and numpy arrays, memory-mapped ones too, of any real type (halves and small integers are read as
    float32, 64-bit integers as float64) and complex ones.  `centred=True` subtracts the mean of the unit columns first
    and scales again: what is left once the direction common to all features is removed.

    Raises ValueError naming the first column that is zero (or equal to the mean), infinite or not a number, and for
    anything that is not a dense matrix.
    """

    def __init__(
        self,
        V: Shaped[Tensor, "d_model n_features"] | Shaped[np.ndarray, "d_model n_features"],
        *,
        centred: bool = False,
        device: torch.device | str | None = None,
    ):
        if (isinstance(V, Tensor) and V.layout != torch.strided) or issparse(V):
            raise ValueError("a dictionary is a dense matrix and this one is sparse; give V.to_dense() or V.toarray()")
        if not isinstance(V, Tensor):
            V = np.asanyarray(V)
            if V.dtype.kind not in "fiubc":
                raise ValueError(f"a dictionary holds numbers; this one holds {V.dtype}")
        if V.ndim != 2:
            raise ValueError(
                f"a dictionary is a matrix (d_model, n_features) with one column a feature; got shape {tuple(V.shape)}"
            )
        self.d_model, self.n_features = int(V.shape[0]), int(V.shape[1])
        if not self.d_model or not self.n_features:
            raise ValueError(f"the dictionary is empty: shape {tuple(V.shape)}")
        self._source = V
        self.device = torch.device(device) if device else (V.device if isinstance(V, Tensor) else torch.device("cpu"))
        name = str(V.dtype).removeprefix("torch.")
        self.is_complex = name.startswith("complex")
        self.is_double = name in ("float64", "complex128", "int64", "uint64", "longdouble")
        self._mean: Tensor | None = None
        self._kept: tuple[torch.dtype, Tensor] | None = None
        self._scale = self._lengths()
        if centred:
            self._mean = self._sum() / self.n_features
            self._scale = self._lengths()

    def block(self, first: int, last: int, dtype: torch.dtype = torch.float32) -> Num[Tensor, "d_model n"]:
        """Unit columns `first` to `last - 1`; complex dictionaries come in the complex type of the same precision."""
        if self._kept is not None and self._kept[0] == dtype:
            return self._kept[1][first:last].t()
        return self._unit(self._raw(slice(first, last)), self._scale[first:last], dtype)

    def keep(self, dtype: torch.dtype = torch.float32) -> "Columns":
        """The same columns read once and kept as unit columns of `dtype`, so that blocks cost nothing."""
        kept = object.__new__(Columns)
        kept.__dict__ |= self.__dict__
        wanted = (torch.complex64 if dtype == torch.float32 else torch.complex128) if self.is_complex else dtype
        store = torch.empty(self.n_features, self.d_model, dtype=wanted, device=self.device)
        for first, last in self._spans():
            store[first:last] = self.block(first, last, dtype).t()
        kept._kept = (dtype, store)
        return kept

    def pick(self, index: Shaped[Tensor, " n"], dtype: torch.dtype = torch.float64) -> Num[Tensor, "d_model n"]:
        """Unit columns at these positions."""
        index = index.to(self.device)
        return self._unit(self._raw(index), self._scale[index], dtype)

    def mean(self) -> Num[Tensor, " d_model"]:
        """Mean of the unit columns, in double precision."""
        return self._sum() / self.n_features

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of a SHA-256 over every entry: a scan resumes only where it began."""
        found = hashlib.sha256(f"{self.d_model} {self.n_features} {self._mean is not None}".encode())
        for first, last in self._spans():
            found.update(self._raw(slice(first, last)).cpu().contiguous().numpy().data)
        return found.hexdigest()[:16]

    def _unit(self, raw: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        wanted = (torch.complex64 if dtype == torch.float32 else torch.complex128) if self.is_complex else dtype
        length = scale[:, 0] * scale[:, 1]
        if bool(((length > 1e-30) & (length < 1e30)).all()):
            values = raw.to(wanted) * (1 / length).to(dtype)
        else:  # the largest entry first, then the length, so that nothing overflows
            values = (raw / scale[:, 0].to(raw.real.dtype)).to(wanted) / scale[:, 1].to(dtype)
        if self._mean is not None:
            values = (values - self._mean[:, None].to(wanted)) / scale[:, 2].to(dtype)
        return values

    def _raw(self, where: slice | Tensor) -> Tensor:
        if isinstance(self._source, Tensor):
            block = self._source.detach()[:, where.to(self._source.device) if isinstance(where, Tensor) else where]
        else:
            chosen = where.cpu().numpy() if isinstance(where, Tensor) else where
            array = np.array(self._source[:, chosen], copy=True)
            if (
                array.dtype.newbyteorder("=") != array.dtype
                or array.dtype.itemsize > 16
                or array.dtype == np.longdouble
            ):
                array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
            block = torch.from_numpy(array)
        block = block.to(self.device)
        if block.dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
            return block
        if block.is_complex():
            return block.to(torch.complex64)
        return block.to(torch.float64 if self.is_double else torch.float32)

    def _lengths(self) -> Float[Tensor, "n_features three"]:
        """Per column: largest entry, length once divided by it, length after centring."""
        out = torch.ones(self.n_features, 3, dtype=torch.float64, device=self.device)
        if self._mean is not None:
            out[:, :2] = self._scale[:, :2]
        for first, last in self._spans():
            if self._mean is None:
                raw = self._raw(slice(first, last))
                if raw.numel() < 4e6:  # squares rounded to single precision are good to 1e-8, which large scans accept
                    raw = raw.to(_double_of(raw.is_complex()))
                squared = raw.abs().square_() if raw.is_complex() else raw.square()
                length = squared.sum(0, dtype=torch.float64).sqrt()
                if bool(((length > 1e-15) & (length < 1e15)).all()):
                    out[first:last, 1] = length
                    continue
                largest = raw.abs().amax(0).double()
                _complain(~torch.isfinite(largest), first, "holds NaN or infinity")
                _complain(largest == 0, first, "is zero")
                out[first:last, 0] = largest
                scaled = raw / largest.to(raw.real.dtype)
                out[first:last, 1] = torch.linalg.vector_norm(scaled, dim=0, dtype=_double_of(raw.is_complex())).real
            else:
                centred = self.block(first, last, torch.float64)
                length = torch.linalg.vector_norm(centred, dim=0).real
                _complain(length < 1e-6, first, "is equal to the mean of all columns, so nothing is left of it centred")
                out[first:last, 2] = length
        return out

    def _sum(self) -> Num[Tensor, " d_model"]:
        total = torch.zeros(self.d_model, device=self.device, dtype=_double_of(self.is_complex))
        for first, last in self._spans():
            total += self.block(first, last).sum(1, dtype=total.dtype)
        return total

    def _spans(self) -> Iterator[tuple[int, int]]:
        for first in range(0, self.n_features, READ):
            yield first, min(first + READ, self.n_features)


def _complain(bad: Tensor, first: int, what: str) -> None:
    if bad.any():
        where = first + int(bad.to(torch.uint8).argmax())
        raise ValueError(f"column {where} {what}; every column of a dictionary must be a direction")


def _double_of(is_complex: bool) -> torch.dtype:
    return torch.complex128 if is_complex else torch.float64
