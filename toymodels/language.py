"""Small language models trained from scratch on text that comes with the installation, watched while they learn.

    from toymodels import language
    index = language.train(language.LanguageConfig(steps=200), Path("little"))

The models are transformers' own classes with a small configuration, so every snapshot is a folder that `open_model`
(and anybody's transformers) reads.  Which batch a step sees depends on the seed and the step alone, and all that
training remembers is saved, so that a stopped training goes on to the same weights bit for bit.
Sources: Kaplan et al. 2020 and Karpathy's nanochat (next-token training); Li et al. 2023, 'The Lazy Neuron Phenomenon'
(top-k during training); the families' own papers.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pandas import DataFrame, Series
from torch import Tensor, nn

from data import Progress, silent
from data.corpus import Corpus, open_corpus
from data.files import only_writer, reading, replacing, sweep
from toymodels import balancing
from toymodels.language_checkpoint import optimizer, restore, save_checkpoint
from toymodels.language_config import ROUTED, LanguageConfig
from toymodels.language_losses import controls, held_out_loss, next_token_loss
from toymodels.language_models import END, build, down_projections, save, train_tokenizer

HELD_OUT = 10
"""Every tenth document, in the order of the seed, is kept for measuring the loss."""
EVALUATED = 64
"""Windows of held-out text on which the loss is measured."""


def train(
    config: LanguageConfig, folder: Path, *, corpus: Corpus | None = None, progress: Progress = silent
) -> DataFrame:
    """Train (or go on training) in `folder` and return the index of snapshots.

    `folder` holds `training.json` (the settings), `step-NNNNNN/` (one transformers folder a snapshot, with tokenizer),
    `snapshots.json` (the index) and `checkpoint.safetensors` (weights and AdamW's moments after the last snapshot).
    A progress callback that raises stops the training between two steps; the same call goes on from the checkpoint.
    Raises ValueError if the folder holds a training with other settings or another process trains in it, or the text
    is too short.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder):
        sweep(folder)
        _claim(folder, config)
        _train(config, folder, corpus or open_corpus(config.corpus), progress)
    return snapshots(folder)


def snapshots(folder: Path) -> DataFrame:
    """Index of the snapshots in a folder, a row each.

    Columns: `step, tokens` (seen by then), `folder` (name of the snapshot's folder), `loss` (nats a token on held-out
    text, with only the kept neurons where the training keeps a share then), `loss_all` (with all neurons), `train_loss`
    (mean since the snapshot before, missing at step 0), the controls `unigram` (held-out loss of token frequencies),
    `kneser_ney` (of the 5-gram) and `uniform` (ln of the number of tokens), `dropped` (share of choices that found
    their expert full, mean since the snapshot before), `keep` (share kept at that step), `n_tokens` (held-out tokens
    measured).
    """
    path = Path(folder) / "snapshots.json"
    if not path.is_file():
        raise ValueError(f"there is no training with snapshots in {folder}")
    return DataFrame(reading(path, _json)).astype({"train_loss": "float64"})


def settings(folder: Path) -> LanguageConfig:
    """The settings of the training in a folder; ValueError if there is none."""
    path = Path(folder) / "training.json"
    if not path.is_file():
        raise ValueError(f"there is no training in {folder}; `train` makes one")
    return LanguageConfig.model_validate(reading(path, _json))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def held_out_documents(corpus: Corpus, seed: int = 0) -> Corpus:
    """The documents that a training with this seed measures on and never reads: every tenth in the seed's order."""
    chosen = set(corpus.order(seed)[::HELD_OUT])
    return corpus.select(Series([i in chosen for i in range(len(corpus))]), f"{corpus.name} (held out)")


@contextmanager
def kept(model: nn.Module, config: LanguageConfig, step: int) -> Iterator[None]:
    """While open, the model keeps for each token only the share of neurons that its training keeps at this step."""
    with ExitStack() as stack:
        if config.keep is not None and step >= config.keep_from:
            for module in down_projections(model):
                handle = module.register_forward_pre_hook(_top(config.keep))
                stack.callback(handle.remove)
        yield


def strongest(z: Float[Tensor, "*tokens d_mlp"], share: float) -> Float[Tensor, "*tokens d_mlp"]:
    """`z` with all but the round(share d_mlp), at least one, entries of largest |z| of each token set to 0."""
    k = max(1, round(share * z.shape[-1]))
    chosen = z.abs().topk(k, dim=-1).indices
    return torch.zeros_like(z).scatter(-1, chosen, z.gather(-1, chosen))


def batch(text: Int[Tensor, " n_tokens"], config: LanguageConfig, step: int) -> Int[Tensor, "batch window"]:
    """The rows of a step: windows of the text at places that depend on the seed and the step alone."""
    # The Mersenne twister behind the generator takes 32 bits of seed, so seed and step are hashed into them.
    mixed = int(np.random.SeedSequence([config.seed, step]).generate_state(1)[0])
    generator = torch.Generator().manual_seed(mixed)
    begin = torch.randint(len(text) - config.window + 1, (config.batch_size, 1), generator=generator)
    return text[begin + torch.arange(config.window)]


def rate(step: int, steps: int) -> float:
    """Share of the highest step length: linear up over the first twentieth, then a cosine down to a tenth."""
    warm = max(1, steps // 20)
    if step <= warm:
        return step / warm
    return 0.55 + 0.45 * math.cos(math.pi * (step - warm) / max(steps - warm, 1))


def _train(config: LanguageConfig, folder: Path, corpus: Corpus, progress: Progress) -> None:
    tokenizer, text, held = _text(config, folder, corpus)
    model = build(config, tokenizer)
    adam = optimizer(model, config)
    done = restore(folder, model, adam)
    known = controls(text, held, len(tokenizer))
    if done is None:
        _snapshot(folder, model, tokenizer, adam, config, 0, {"train_loss": None, "dropped": 0.0, **known}, held)
    losses: list[float] = []
    dropped: list[float] = []
    for step in range((done or 0) + 1, config.steps + 1):
        loss, lost = _step(model, adam, batch(text, config, step), config, step)
        losses.append(loss)
        dropped += lost
        if step in config.marks:
            since = {"train_loss": float(np.mean(losses)), "dropped": float(np.mean(dropped)) if dropped else 0.0}
            _snapshot(folder, model, tokenizer, adam, config, step, since | known, held)
            losses, dropped = [], []
        progress(step, config.steps, f"training: loss {loss:.3f}")


def _step(
    model: Any, adam: torch.optim.AdamW, rows: Tensor, config: LanguageConfig, step: int
) -> tuple[float, list[float]]:
    """One step of AdamW: the next-token loss before it, and the shares of choices dropped, a number a layer."""
    with kept(model, config, step), balancing.watched(model, config) as seen:
        loss = next_token_loss(model(input_ids=rows, use_cache=False).logits, rows)
    adam.zero_grad()
    (loss + balancing.penalty(seen, config)).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in adam.param_groups:
        group["lr"] = config.learning_rate * rate(step, config.steps)
    adam.step()
    if config.balancing == "bias" and config.family in ROUTED:
        balancing.move_bias(model, seen)
    return float(loss.detach()), seen.dropped


def _top(share: float) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    return lambda module, inputs: (strongest(inputs[0], share),)


def _text(config: LanguageConfig, folder: Path, corpus: Corpus) -> tuple[Any, Tensor, Tensor]:
    """Tokenizer, training text as one row of token ids, held-out windows."""
    tokenizer = train_tokenizer(_training_documents(config, corpus), config.vocab_size, folder / "tokenizer")
    text = training_text(config, tokenizer, corpus)
    held = token_ids(tokenizer, [document.text for document in held_out_documents(corpus, config.seed)])
    if len(text) <= config.window or len(held) < config.window:
        raise ValueError(f"'{corpus.name}' is too short for windows of {config.window} tokens; give more text")
    n = len(held) // config.window
    chosen = torch.linspace(0, n - 1, min(n, EVALUATED)).long()
    return tokenizer, text, held[: n * config.window].view(n, config.window)[chosen]


def training_text(config: LanguageConfig, tokenizer: Any, corpus: Corpus) -> Int[Tensor, " n_tokens"]:
    """All documents that the training reads, as one row of tokens; each begins with the token END."""
    return token_ids(tokenizer, _training_documents(config, corpus))


def token_ids(tokenizer: Any, texts: list[str]) -> Int[Tensor, " n_tokens"]:
    """The texts as one row of tokens; each begins with the token END."""
    end = tokenizer.convert_tokens_to_ids(END)
    encoded = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    return torch.tensor([i for one in encoded for i in (end, *one.ids)])


def _training_documents(config: LanguageConfig, corpus: Corpus) -> list[str]:
    names = set(held_out_documents(corpus, config.seed).documents["document"])
    texts = [document.text for document in corpus if document.name not in names]
    if not texts:
        raise ValueError(f"'{corpus.name}' is a single document; training needs another one to measure on")
    return texts


def _claim(folder: Path, config: LanguageConfig) -> None:
    path, asked = folder / "training.json", config.model_dump(mode="json")
    if path.exists():
        begun = reading(path, _json)
        if differing := sorted(k for k in asked | begun if asked.get(k) != begun.get(k)):
            raise ValueError(f"{folder} holds a training with other settings ({', '.join(differing)}); choose another")
        return
    with replacing(path, sealed=True) as temporary:
        temporary.write_text(json.dumps(asked, indent=1), encoding="utf-8")


def _snapshot(
    folder: Path,
    model: Any,
    tokenizer: Any,
    adam: torch.optim.AdamW,
    config: LanguageConfig,
    step: int,
    known: Mapping[str, float | None],
    held: Tensor,
) -> None:
    """Weights as a transformers folder, the row of the index, then the checkpoint, from which training goes on."""
    name = f"step-{step:06d}"
    save(model, tokenizer, folder / name)
    with kept(model, config, step):
        loss = held_out_loss(model, held)
    sparse = config.keep is not None and step >= config.keep_from
    row = {
        "step": step,
        "tokens": step * config.batch_size * config.window,
        "folder": name,
        "loss": loss,
        "loss_all": held_out_loss(model, held) if sparse else loss,
        **known,
        "keep": config.keep if sparse else 1.0,
        "n_tokens": held.shape[0] * (held.shape[1] - 1),
    }
    path = folder / "snapshots.json"
    before = reading(path, _json) if path.exists() else []
    with replacing(path, sealed=True) as temporary:
        rows = [r for r in before if r["step"] < step] + [row]
        temporary.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    save_checkpoint(folder, model, adam, step)
