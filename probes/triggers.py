"""The tokens on which each neuron is largest: streaming top-k for both signs, and the text around them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from data.alignment import encoder
from data.corpus import Corpus
from data.tables import Tables
from probes.firing import Sums
from probes.models import LanguageModel
from probes.sinks import KEPT
from probes.stream import Observation, TokenBatch

SIGNS = {"+": 1, "-": -1}
"""A gated neuron writes its value vector with either sign; each sign has triggers of its own."""
_DOCUMENT = 32  # a place is document_index * 2^32 + position in the document


class Triggers(Sums):
    """The `k` tokens on which each neuron of `layers` is most positive, and those on which it is most negative.

    Ordinary tokens that have a next token in their window; attention sinks and first positions are left out, since
    they would be the triggers of most neurons.  Of equal activations the earlier token is kept, so that the result
    does not depend on how the text was cut into batches or in which order parts were merged.  Memory is
    layers x 2 x d_mlp x k x 20 bytes, whatever the number of tokens.
    """

    sites = ("neurons",)

    def __init__(self, model: LanguageModel, layers: Sequence[int], k: int = 10):
        shape = (len(layers), len(SIGNS), model.d_mlp, k)
        super().__init__(
            activation=np.zeros(shape, dtype=np.float32),
            place=np.full(shape, -1, dtype=np.int64),
            next_id=np.full(shape, -1, dtype=np.int64),
        )
        self.layers, self.k = list(layers), k

    def update(self, seen: Observation) -> None:
        """Let the batch's tokens compete with those held."""
        if seen.layer not in self.layers or "neurons" not in seen.sites:
            return
        place, next_id, usable = _tokens(seen.tokens)
        kept = np.flatnonzero(usable & (seen.group == KEPT).cpu().numpy())
        z = seen.sites["neurons"][torch.from_numpy(kept).to(seen.group.device)].float()
        for number, sign in enumerate(SIGNS.values()):
            held = {name: a[self.layers.index(seen.layer), number, : z.shape[1]] for name, a in self.arrays.items()}
            rows, neurons, size = _candidates(z * sign, held["activation"][:, -1], self.k)
            fresh = _by_neuron(neurons, size, place[kept][rows], next_id[kept][rows], z.shape[1], self.k)
            best = _best(held, fresh, self.k)
            for name, array in held.items():
                array[:] = best[name]

    def merge(self, other: Sums) -> None:
        """Keep the best of both."""
        self.arrays = _best(self.arrays, other.arrays, self.k)

    def tables(self) -> Tables:
        """`triggers`: layer, neuron, sign, rank (from 0), activation, place, next_id."""
        activation = self.arrays["activation"]
        at = np.nonzero(activation)
        index, number, neuron, rank = at
        columns = {
            "layer": np.array(self.layers)[index],
            "neuron": neuron,
            "sign": np.array(list(SIGNS))[number],
            "rank": rank,
            "activation": activation[at] * np.array(list(SIGNS.values()))[number],
            "place": self.arrays["place"][at],
            "next_id": self.arrays["next_id"][at],
        }
        return Tables(triggers=DataFrame(columns))


def contexts(
    corpus: Corpus,
    tokenizer: Any,
    places: Iterable[int],
    *,
    window: int,
    before: int = 24,
    after: int = 8,
    seed: int = 0,
) -> DataFrame:
    """The text at each place: `place, document, position, before, token, after, next_token`.

    `before` and `after` count tokens; before the token stands no more than its window held, which is all that the
    model saw.  Reads the named documents again, one at a time.
    """
    encode, order = encoder(tokenizer), corpus.order(seed)
    rows: list[dict[str, Any]] = []
    wanted = np.unique(np.fromiter(places, dtype=np.int64))
    for index in np.unique(wanted >> _DOCUMENT).tolist():
        document = corpus[order[index]]
        _, offsets = encode(document.text)
        for position in (wanted[wanted >> _DOCUMENT == index] & (2**_DOCUMENT - 1)).tolist():
            begin, end = offsets[position]
            first = offsets[position - min(before, position % (window - 1))][0]
            last = offsets[min(position + after, len(offsets) - 1)][1]
            following = slice(*offsets[position + 1]) if position + 1 < len(offsets) else slice(end, end)
            rows.append(
                {
                    "place": (index << _DOCUMENT) + position,
                    "document": document.name,
                    "position": position,
                    "before": document.text[first:begin],
                    "token": document.text[begin:end],
                    "after": document.text[end:last],
                    "next_token": document.text[following],
                }
            )
    columns = ["place", "document", "position", "before", "token", "after", "next_token"]
    return DataFrame(rows, columns=columns)


def _tokens(batch: TokenBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place, next token and whether there is one in the window, of every token of the batch."""
    position = np.concatenate([w.position_in_document for w in batch.windows])
    document = np.repeat([w.document_index for w in batch.windows], [len(w) for w in batch.windows])
    next_id = np.concatenate([np.append(w.token_ids[1:], -1) for w in batch.windows])
    return (document << _DOCUMENT) + position, next_id, (position >= 0) & (next_id >= 0)


def _candidates(
    z: Float[Tensor, "n_tokens d_mlp"], floor: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token, neuron and activation wherever a token could enter its neuron's best k; once those are full, few can."""
    least = torch.from_numpy(floor.copy()).to(z.device)
    unfilled = least == 0
    if len(z) > k and bool(unfilled.any()):
        least[unfilled] = z[:, unfilled].topk(k, dim=0).values[-1].clamp(min=0)
    rows, neurons = ((z >= least) & (z > 0)).nonzero(as_tuple=True)
    return rows.cpu().numpy(), neurons.cpu().numpy(), z[rows, neurons].cpu().numpy()


def _by_neuron(
    neurons: np.ndarray, size: np.ndarray, place: np.ndarray, next_id: np.ndarray, width: int, k: int
) -> dict[str, np.ndarray]:
    """Candidates as arrays (width, k): the best k of each neuron, the rest empty."""
    order = np.lexsort((place, -size, neurons))
    sorted_neurons = neurons[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_neurons, sorted_neurons)
    order, rank = order[rank < k], rank[rank < k]
    made: dict[str, np.ndarray] = {
        "activation": np.zeros((width, k), dtype=np.float32),
        "place": np.full((width, k), -1, dtype=np.int64),
        "next_id": np.full((width, k), -1, dtype=np.int64),
    }
    for name, values in (("activation", size), ("place", place), ("next_id", next_id)):
        made[name][neurons[order], rank] = values[order]
    return made


def _best(one: dict[str, np.ndarray], two: dict[str, np.ndarray], k: int) -> dict[str, np.ndarray]:
    """The k largest of both along the last axis, earlier places first among equals."""
    both = {name: np.concatenate([one[name], two[name]], axis=-1) for name in one}
    order = np.lexsort((both["place"], -both["activation"]), axis=-1)[..., :k]
    return {name: np.take_along_axis(array, order, axis=-1) for name, array in both.items()}
