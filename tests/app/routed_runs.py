"""A real run of the experts probe on a tiny mixture with random weights, whose text holds markup as one token."""

from pathlib import Path
from typing import Any

from data.corpus import Corpus
from data.labels import RegexTagger
from data.runs import Run, create
from data.sources import Document
from tests.probes.tiny import SENTENCES, tiny_hf

NASTY = "<script>window.broken=1</script>"
E, K, N_LAYERS = 6, 2, 2


class Classes:
    """A tagger by spelling: capitals, numbers, punctuation and the rest; sentences end at full stops."""

    name = "spelling"

    def tag(self, texts: Any) -> list[Any]:
        import numpy as np

        from data.wordclass import Words

        found = RegexTagger(r"(?P<PROPN>[A-Z]\w*)|(?P<NUM>\d+)|(?P<PUNCT>[.,;])|(?P<NOUN>\w+)").tag(texts)
        made = []
        for text, words in zip(texts, found, strict=True):
            stops = np.array([i for i, c in enumerate(text) if c == "."])
            made.append(Words(words.start, words.end, words.universal, words.fine, np.searchsorted(stops, words.start)))
        return made


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    made.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")
    fast.add_tokens([NASTY])
    return fast


def routed_run(root: Path, name: str = "routed") -> Run:
    """The run, and beside it the model's folder `tiny`, which its settings name."""
    from probes import open_model, routing
    from probes.stream import StreamConfig

    words = tokenizer()
    model = open_model(
        tiny_hf("olmoe", num_experts=E, num_experts_per_tok=K, vocab_size=320, num_hidden_layers=N_LAYERS),
        tokenizer=words,
    )
    folder = root.parent / "tiny"
    model.hf.save_pretrained(folder)
    words.save_pretrained(folder)
    text = [" ".join(SENTENCES[(i + j) % 4] for j in range(3)) + f" It said {NASTY} aloud." for i in range(10)]
    corpus = Corpus.of(
        "text", [Document(f"d{i} {NASTY}", t, "odd" if i % 2 else "even", {}) for i, t in enumerate(text)]
    )
    run = create(name, {"model": str(folder), "corpus": "text"}, kind="probe.experts", root_folder=root)
    routing.measure(model, corpus, 1_500, tagger=Classes(), n_permutations=10, config=StreamConfig(window=64), run=run)
    run.report("done", 1, 1)
    return run
