"""The ledger of claims: what the literature says, and what the tables of a run say of it.

    from app.claims import CLAIMS, judge
    judge(run.tables())                        # name -> Finding: verdict, numbers, control, sample size

A verdict is computed from tables and from nothing else: without them it is `not yet measured`.
"""

from app.claims import costs, experts, granularity, secret, sparsity, superposition
from app.claims.claim import NOT_YET, VERDICTS, Claim, Finding, Frames, Verdict

__all__ = ["CLAIMS", "NOT_YET", "VERDICTS", "Claim", "Finding", "Frames", "Verdict", "find", "judge"]

CLAIMS: tuple[Claim, ...] = (
    *sparsity.CLAIMS,
    *superposition.CLAIMS,
    *experts.CLAIMS,
    *granularity.CLAIMS,
    *secret.CLAIMS,
    *costs.CLAIMS,
)


def judge(tables: Frames) -> dict[str, Finding]:
    """What these tables say of every claim, by the claim's name."""
    return {claim.name: claim.judge(tables) for claim in CLAIMS}


def find(name: str) -> Claim:
    """The claim of this name; ValueError lists the names there are."""
    for claim in CLAIMS:
        if claim.name == name:
            return claim
    raise ValueError(f"no claim '{name}'; there are {', '.join(claim.name for claim in CLAIMS)}")
