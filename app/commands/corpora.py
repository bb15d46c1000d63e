"""`sparsescope corpora`: text that can be measured on."""

from typing import Annotated

import typer

from app.commands._columns import echo_columns
from app.commands._run import guard

verbs = typer.Typer()


@verbs.callback(invoke_without_command=True)
@guard
def corpora(context: typer.Context) -> None:
    """List the built-in corpora, or `show` what a corpus, a file, a folder or a dataset holds.

    Wherever a verb takes `--corpus`, it takes a built-in name; a .txt, .md, .jsonl, .csv, .tsv, .parquet or .conllu
    file; a folder of them (subfolders are domains); `hf:OWNER/NAME`; or several joined by `+`.

    Examples: `sparsescope corpora`, `sparsescope corpora show notes/`,
    `sparsescope corpora show sotu-modern+python-reference`
    """
    if context.invoked_subcommand is not None:
        return
    from data.builtin import BUILT_IN, DEFAULT_CORPUS
    from data.corpus import open_corpus

    rows = []
    for name, about in BUILT_IN.items():
        corpus = open_corpus(name)
        words = sum(len(document.text.split()) for document in corpus)
        rows.append((name, len(corpus), words, about.licence))
    echo_columns(("corpus", "documents", "words", "licence"), rows)
    for name, about in BUILT_IN.items():
        typer.echo(f"\n{name}: {about.what}\n  from {about.source}")
    typer.echo(
        f"\nMeasurements read {DEFAULT_CORPUS} unless told otherwise; `sparsescope corpora show PATH` reads a file."
    )


@verbs.command()
@guard
def show(
    source: Annotated[str, typer.Argument(help="A built-in name, a file, a folder, hf:OWNER/NAME, or several with +.")],
    documents: Annotated[int, typer.Option(min=0, help="Documents to show the beginning of.")] = 5,
    limit: Annotated[int | None, typer.Option(help="Read no more documents than this.")] = None,
    since: Annotated[int | None, typer.Option(help="Leave out documents of an earlier year.")] = None,
    until: Annotated[int | None, typer.Option(help="Leave out documents of a later year.")] = None,
    text_column: Annotated[str, typer.Option(help="Column or key that holds the text.")] = "text",
    domain_column: Annotated[str, typer.Option(help="Column or key that holds the domain.")] = "domain",
    encoding: Annotated[str, typer.Option(help="Encoding of text files.")] = "utf-8",
    split: Annotated[str, typer.Option(help="Split of a dataset.")] = "train",
) -> None:
    """Count what a corpus holds and show how it begins.

    The hash is what a run's provenance records: it changes when any name, domain or text does.

    Examples: `sparsescope corpora show reviews.csv --text-column body`, `sparsescope corpora show sotu --since 1982`
    """
    from data.corpus import open_corpus

    corpus = open_corpus(
        source,
        limit=limit,
        since=since,
        until=until,
        text_column=text_column,
        domain_column=domain_column,
        encoding=encoding,
        split=split,
    )
    frame = corpus.documents
    words = [len(document.text.split()) for document in corpus]
    typer.echo(f"{corpus.name}  hash {corpus.hash}")
    typer.echo(f"{len(corpus):,} documents, {sum(words):,} words, {int(frame['characters'].sum()):,} characters\n")
    by_domain = frame.assign(words=words).groupby("domain")["words"].agg(["size", "sum"])
    rows = [(domain, int(n), int(total)) for domain, n, total in by_domain.itertuples()]
    echo_columns(("domain", "documents", "words"), rows)
    more = [c for c in frame.columns if c not in ("document", "domain", "characters", "hash")]
    typer.echo(f"\nmetadata: {', '.join(more) or 'none'}\n")
    shown = [(corpus[i].name, words[i], corpus[i].text[:60]) for i in range(min(documents, len(corpus)))]
    if shown:
        echo_columns(("document", "words", "begins"), shown)
