"""Before training a mixture's experts say no more of word classes than tokens do; after it they do."""

from probes import open_model
from probes.controls import random_init
from tests.probes.untrained import tagged, word_classes


def test_word_classes_stand_out_in_every_layer_after_training_and_in_none_before() -> None:
    model, text = open_model("tinymoe"), tagged(5_000)
    assert (word_classes(model, text)["z_type"] > 5).all()
    for seed in range(3):
        untrained = word_classes(random_init(model, seed), text)
        assert len(untrained) == model.n_layers and untrained["z_type"].abs().max() < 3
        # against exchanged labels, which know nothing of tokens, the same would pass for specialization
        assert (untrained["z_label"] > 5).all()
