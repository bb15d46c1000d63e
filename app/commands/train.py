"""`sparsescope train`: a small language model from scratch."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands._columns import echo_table
from app.commands._options import Text
from app.commands._run import guard, progress

SINGLE = True
verbs = typer.Typer()


@verbs.command()
@guard
def train(
    out: Annotated[Path, typer.Argument(help="Folder for the snapshots; a training in it is taken up again.")],
    family: Annotated[str, typer.Option(help="llama, gpt_neox, olmoe, qwen2_moe or deepseek_v3.")] = "llama",
    activation: Annotated[str, typer.Option(help="relu, silu or gelu.")] = "relu",
    corpus: Text = "sotu-modern",
    layers: Annotated[int, typer.Option(help="Transformer blocks.")] = 2,
    d_model: Annotated[int, typer.Option(help="Width of the residual stream.")] = 64,
    d_mlp: Annotated[int, typer.Option(help="Neurons of a block, or of an expert.")] = 256,
    experts: Annotated[int, typer.Option(help="Experts of each mixture.")] = 8,
    k: Annotated[int, typer.Option(help="Experts used for a token.")] = 2,
    balancing: Annotated[
        str | None, typer.Option(help="none, auxiliary, z_loss, bias or capacity. Default: the family's own way.")
    ] = None,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    vocab: Annotated[int, typer.Option(help="Tokens of the BPE that is trained first.")] = 1_024,
    window: Annotated[int, typer.Option(help="Tokens in a row of a batch.")] = 64,
    batch: Annotated[int, typer.Option(help="Rows of a batch.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Highest step length of AdamW.")] = 3e-3,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 500,
    snapshots: Annotated[int, typer.Option(help="Snapshots, evenly spaced in the logarithm of the step.")] = 12,
    keep: Annotated[float | None, typer.Option(help="Share of neurons kept for each token. Default: all.")] = None,
    keep_from: Annotated[int, typer.Option(help="Step from which on only they are kept.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and held-out documents.")] = 0,
) -> None:
    """Train a small language model on built-in text and keep log-spaced snapshots.

    Every snapshot is a folder in transformers' format that all other verbs open. The printed losses, in nats a token,
    are of documents that training does not read, beside that of token frequencies alone. Ctrl-C stops; the same command
    goes on from the last snapshot, to the same weights bit for bit.

    Example: `sparsescope train models/little --steps 500`, then
    `sparsescope probe sparsity --model models/little/step-000500`
    """
    from toymodels import language

    config = language.LanguageConfig.model_validate(
        {"family": family, "activation": activation, "corpus": corpus, "n_layers": layers, "d_model": d_model}
        | {"d_mlp": d_mlp, "n_experts": experts, "k": k, "steps": steps, "snapshots": snapshots, "keep": keep}
        | {"keep_from": keep_from, "seed": seed, "n_heads": heads, "vocab_size": vocab, "window": window}
        | {"batch_size": batch, "learning_rate": learning_rate}
        | ({"balancing": balancing} if balancing else {})
    )
    with progress("training") as tell:
        index = language.train(config, out, progress=tell)
    echo_table(index, ["step", "tokens", "folder", "loss", "unigram", "kneser_ney"], digits=4)
