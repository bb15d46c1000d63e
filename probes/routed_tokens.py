"""Writes down, token by token, which experts were used: an accumulator whose sums are files of the run folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data import routed
from data.tables import Tables
from probes.firing import Sums
from probes.models import LanguageModel
from probes.random_router import fitted_biases
from probes.sinks import KEPT
from probes.stream import Observation, TokenBatch

Choice = tuple[Int[Tensor, "n_tokens k"], Float[Tensor, "n_tokens k"]]
"""Experts and weights of each token."""
Router = Callable[[Observation], Choice | None]
"""Reads a choice off what was observed; None where the layer routes nothing."""


def as_used(seen: Observation) -> Choice | None:
    """The model's own choice."""
    if "expert_index" not in seen.sites:
        return None
    return seen.sites["expert_index"], seen.sites["expert_weight"]


class Recorder:
    """Keeps a shard's tokens and routes, and writes them as one part of the run folder when its state is asked for.

    Parts are named by the first document they hold, so that parts of several machines lie side by side.  No part is
    begun once `most` tokens are written; whole shards are kept, as the order inside one is known at its end.

    A copy has no folder: it may be on another machine.  Its state holds its rows, and who merges it writes them.
    """

    def __init__(
        self,
        model: LanguageModel,
        folder: Path | None,
        condition: str = "real",
        *,
        router: Router = as_used,
        sites: tuple[str, ...] = ("expert_index", "expert_weight"),
        most: int | None = None,
    ):
        self.sites = sites
        self.most, self.written = most, 0
        self.folder, self.condition, self.router = folder, condition, router
        self.layers = [i for i, block in enumerate(model.blocks) if block.n_experts]
        self.n_experts = [model.blocks[i].n_experts for i in self.layers]
        self.k = model.k
        self.parts: list[int] = []
        """First document of each part."""
        self._tokens: list[dict[str, np.ndarray]] = []
        self._routes: dict[int, list[dict[str, np.ndarray]]] = {}
        self._latest: Any = None

    def update(self, seen: Observation) -> None:
        """Hold on to one layer of one batch."""
        if self.most is not None and self.written >= self.most:
            return
        choice = self.router(seen)
        if choice is None:
            return
        if seen.tokens is not self._latest:
            self._latest = seen.tokens
            self._tokens.append(_token_columns(seen.tokens))
        index, weights = (tensor.cpu() for tensor in choice)
        text = torch.from_numpy(self._tokens[-1]["is_text"])
        held = {"experts": _wide(index[text], self.k, -1), "weights": _wide(weights[text], self.k, 0)}
        held["kept"] = (seen.group.cpu()[text] == KEPT).numpy()
        self._routes.setdefault(seen.layer, []).append(held)

    def merge(self, other: "Recorder") -> None:
        """Take over the other's parts, which must lie in the same folder, or write the rows that a copy holds."""
        self.flush()
        if other.folder is None and (self.most is None or self.written < self.most):
            self._tokens, self._routes = other._tokens, other._routes
            self.flush()
        if other.folder is not None:
            other.flush()
            self.parts = sorted({*self.parts, *other.parts})
            self.written += other.written

    def flush(self) -> None:
        """Write what is held as one part, in reading order; a copy goes on holding it."""
        if not self._tokens or self.folder is None:
            return
        columns, layers = self._held()
        order = np.lexsort([columns["position"], columns["document"]])
        number = int(columns["document"].min())
        routes = [{name: rows[order] for name, rows in layers[layer].items()} for layer in self.layers]
        routed.save_routes_part(self.folder, self.condition, number, routes)
        if self.condition == "real":
            routed.save_tokens_part(self.folder, number, {n: columns[n][order] for n in routed.TOKEN_SCHEMA.names})
        self.parts.append(number)
        self.written += len(order)
        self._tokens, self._routes, self._latest = [], {}, None

    def _held(self) -> tuple[dict[str, np.ndarray], dict[int, dict[str, np.ndarray]]]:
        """What is not written yet: text tokens by column, and by layer their routes."""
        names = (*routed.TOKEN_SCHEMA.names, "is_text")
        columns = {name: np.concatenate([t[name][t["is_text"]] for t in self._tokens]) for name in names}
        layers = {
            layer: {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            for layer, parts in self._routes.items()
        }
        return columns, layers

    def state(self) -> dict[str, np.ndarray]:
        """The numbers of the parts and of the tokens in them, after writing the last; of a copy, its rows."""
        self.flush()
        known = {"parts": np.array(self.parts, dtype=np.int64), "written": np.array(self.written)}
        if not self._tokens:
            return known
        columns, layers = self._held()
        routes = {f"{layer}/{name}": rows for layer, held in layers.items() for name, rows in held.items()}
        return known | {f"tokens/{name}": column for name, column in columns.items()} | routes

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on after these parts, with these rows."""
        self.parts = [int(number) for number in state["parts"]]
        self.written = int(state["written"])
        columns = {key.removeprefix("tokens/"): rows for key, rows in state.items() if key.startswith("tokens/")}
        self._tokens, self._routes, self._latest = [columns] if columns else [], {}, None
        for layer in self.layers if columns else ():
            at = f"{layer}/"
            held = {key.removeprefix(at): rows for key, rows in state.items() if key.startswith(at)}
            self._routes[layer] = [held]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"folder": None}

    def tables(self) -> Tables:
        """None: routes are read from their own files."""
        return Tables()

    def finish(self) -> None:
        """Make the condition's files from the parts, unless that was done before."""
        self.flush()
        if self.folder is not None and (self.folder / routed.PARTS).exists():
            routed.put_together(self.folder, self.condition, self.parts, self.layers, self.n_experts, self.k)


class RandomDirections(Sums):
    """A router of random directions that reads the trained router's input and spreads its load alike.

    What `random_router` does for inputs in memory: the biases that give each expert the load it has in the model are
    found on the layer's first batch, which is shown before a pass that is spread (`stream.begin`).
    """

    sites = ("router_input", "expert_index")

    def __init__(self, model: LanguageModel, seed: int = 0):
        super().__init__(
            bias=np.zeros((model.n_layers, max(model.n_experts, 1)), dtype=np.float32),
            ready=np.zeros(model.n_layers, dtype=np.int64),
        )
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(model.d_model, block.n_experts, generator=generator) for block in model.blocks]
        self.directions = [directions / directions.norm(dim=0) for directions in drawn]

    def merge(self, other: Sums) -> None:
        """Nothing: the biases of a pass are those of its first batch."""

    def update(self, seen: Observation) -> None:
        """Find the biases of a layer when it is first seen."""
        if "expert_index" not in seen.sites or self.arrays["ready"][seen.layer]:
            return
        kept = (seen.group == KEPT).cpu()
        index = seen.sites["expert_index"].cpu()[kept].long()
        width = self.directions[seen.layer].shape[1]
        counts = np.bincount(index[index >= 0].flatten().numpy(), minlength=width)
        # dropped slots leave less than k experts a token; random directions drop none
        wanted = np.minimum(counts * index.shape[1] / max(counts.sum(), 1), 1)
        scores = self._scores(seen)[kept].numpy()
        self.arrays["bias"][seen.layer, :width] = fitted_biases(scores, wanted, index.shape[1])
        self.arrays["ready"][seen.layer] = 1

    def __call__(self, seen: Observation) -> Choice | None:
        """The choice of the random router."""
        if "expert_index" not in seen.sites:
            return None
        self.update(seen)
        width, k = self.directions[seen.layer].shape[1], seen.sites["expert_index"].shape[1]
        top = (self._scores(seen) + torch.from_numpy(self.arrays["bias"][seen.layer, :width])).topk(k, dim=1)
        return top.indices, top.values.softmax(dim=1)

    def _scores(self, seen: Observation) -> Float[Tensor, "n_tokens n_experts"]:
        return seen.sites["router_input"].float().cpu() @ self.directions[seen.layer]

    def tables(self) -> Tables:
        """None: its choices are recorded like the model's."""
        return Tables()


def hash_router(
    token_ids: Int[np.ndarray, " n_tokens"], load: Int[np.ndarray, " n_experts"], k: int, seed: int = 0
) -> Int[np.ndarray, "n_tokens k"]:
    """A router that knows nothing but the token: every type has k fixed experts, drawn in proportion to `load`."""
    types, place = np.unique(token_ids, return_inverse=True)
    rng = np.random.default_rng(seed)
    # the k largest of log p + Gumbel noise are k draws without replacement in proportion to p
    noise = rng.gumbel(size=(len(types), len(load))) + np.log(np.maximum(load, 1e-9))
    return np.argsort(-noise, axis=1)[:, :k][place]


def _token_columns(tokens: TokenBatch) -> dict[str, np.ndarray]:
    """One entry a token of the batch, begin tokens included (`is_text` tells them apart)."""
    windows = tokens.windows
    sizes = [len(w) for w in windows]

    def spread(values: list[Any]) -> np.ndarray:
        return np.repeat(np.array(values), sizes)

    columns = {
        "document": spread([w.document_index for w in windows]),
        "position": np.concatenate([w.position_in_document for w in windows]),
        "in_window": tokens.position.numpy(),
        "sentence": np.concatenate([w.sentence for w in windows]),
        "token_id": np.concatenate([w.token_ids for w in windows]),
        "text": np.concatenate([w.text for w in windows]),
        "word_class": np.concatenate([w.word_class for w in windows]),
        "fine": np.concatenate([w.fine for w in windows]),
        "domain": spread([w.domain for w in windows]).astype(object),
    }
    return columns | {"is_text": columns["position"] >= 0}


def _wide(values: Tensor, k: int, filler: int) -> np.ndarray:
    """`k` columns, those beyond the layer's own slots filled."""
    whole = torch.full((len(values), k), filler, dtype=torch.float32 if filler == 0 else torch.int64)
    whole[:, : values.shape[1]] = values.to(whole.dtype)
    return whole.numpy()
