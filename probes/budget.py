"""What a feed-forward block costs: parameters, bytes, multiply-adds and expert combinations, total and active."""

from math import comb

from pandas import DataFrame
from pydantic import NonNegativeInt, PositiveInt, model_validator

from data.config import Config

BITS = (32, 16, 8, 4, 2)
"""Widths of a stored number."""
MIB = 2**20


class FeedForward(Config):
    """A dense block, or a mixture of experts that are such blocks.

    4096 x 11008 with two matrices and no biases has 2 * 4096 * 11008 = 90,177,536 parameters, 344.00 MiB in 32 bits.
    """

    d_model: PositiveInt = 4096
    """Width of the residual stream."""
    d_mlp: PositiveInt = 11008
    """Neurons of the block, or of each expert."""
    matrices: PositiveInt = 2
    """2 (in, out) or 3 (gate, up, down)."""
    bias: bool = False
    """Whether every matrix has a bias."""
    n_experts: NonNegativeInt = 0
    """Experts a router chooses among; 0: a dense block."""
    k: NonNegativeInt = 0
    """Experts used for a token."""
    n_shared: NonNegativeInt = 0
    """Experts that every token uses besides."""

    @model_validator(mode="after")
    def _possible(self) -> "FeedForward":
        if self.matrices not in (2, 3):
            raise ValueError(f"matrices={self.matrices}; a feed-forward block has 2 (in, out) or 3 (gate, up, down)")
        if bool(self.n_experts) != bool(self.k) or self.k > self.n_experts:
            raise ValueError(f"k={self.k} of n_experts={self.n_experts} cannot be used; choose 1 <= k <= n_experts")
        if self.n_shared and not self.n_experts:
            raise ValueError("n_shared experts need n_experts and k")
        return self

    @property
    def block_parameters(self) -> int:
        """Parameters of one dense block or expert: matrices * d_model * d_mlp, and biases."""
        biases = (self.matrices - 1) * self.d_mlp + self.d_model if self.bias else 0
        return self.matrices * self.d_model * self.d_mlp + biases

    @property
    def router_parameters(self) -> int:
        """d_model * n_experts."""
        return self.d_model * self.n_experts

    @property
    def total_parameters(self) -> int:
        """What is stored: all experts and the router."""
        return self.block_parameters * (self.n_experts + self.n_shared or 1) + self.router_parameters

    @property
    def active_parameters(self) -> int:
        """What one token uses: k experts, the shared ones and the router."""
        return self.block_parameters * (self.k + self.n_shared or 1) + self.router_parameters

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds a token: one a weight of every active matrix; biases only add."""
        blocks = self.k + self.n_shared or 1
        return blocks * self.matrices * self.d_model * self.d_mlp + self.router_parameters

    @property
    def combinations(self) -> int:
        """Sets of experts a token can use: C(n_experts, k); 1 for a dense block."""
        return comb(self.n_experts, self.k)

    def bytes(self, bits: int, *, active: bool = False) -> float:
        """Bytes at `bits` a parameter."""
        if bits not in BITS:
            raise ValueError(f"bits={bits}; choose among {', '.join(map(str, BITS))}")
        return (self.active_parameters if active else self.total_parameters) * bits / 8

    def label(self) -> str:
        """`4096 x 11008 dense`, `4096 x 1408, 6 of 64 experts`."""
        size = f"{self.d_model} x {self.d_mlp}"
        shared = f" + {self.n_shared} shared" if self.n_shared else ""
        return f"{size}, {self.k} of {self.n_experts} experts{shared}" if self.n_experts else f"{size} dense"


def budget(*blocks: FeedForward) -> DataFrame:
    """One row a block: block, parameters, active_parameters, active_share, multiply_adds, combinations,
    log2_combinations, and mib_BITS, active_mib_BITS for every width in BITS.

    Numbers are exact; combinations are text, since they can exceed 64 bits.
    """
    from math import log2

    rows = []
    for block in blocks:
        row: dict[str, object] = {
            "block": block.label(),
            "parameters": block.total_parameters,
            "active_parameters": block.active_parameters,
            "active_share": block.active_parameters / block.total_parameters,
            "multiply_adds": block.multiply_adds,
            "combinations": f"{block.combinations:,}",
            "log2_combinations": log2(block.combinations),
        }
        for bits in BITS:
            row |= {f"mib_{bits}": block.bytes(bits) / MIB, f"active_mib_{bits}": block.bytes(bits, active=True) / MIB}
        rows.append(row)
    return DataFrame(rows)
