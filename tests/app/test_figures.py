"""What the sparsity figures draw, against the frames they are drawn from."""

import numpy as np
import pytest
from pandas import DataFrame

from app.figures import catalogue, neurons, sparsity, theme
from app.figures.sources import BIBTEX
from data import Tables

CONDITIONS = ("real", "gaussian", "random_init", "shuffled")


def test_every_condition_is_drawn_with_its_band(tables: Tables) -> None:
    figure = sparsity.by_layer(tables.layers, "firing_frequency")
    rows = tables.layers.query("measure == 'firing_frequency' and sinks == 'without'")
    bands, lines = figure.data[::2], figure.data[1::2]
    assert [line.name for line in lines] == [theme.condition(c).label for c in CONDITIONS]
    for band, line, name in zip(bands, lines, CONDITIONS, strict=True):
        part = rows[rows["condition"] == name].sort_values("layer")
        np.testing.assert_allclose(line.y, part["value"] * 100)
        np.testing.assert_allclose(sorted(band.y), sorted([*part["low"] * 100, *part["high"] * 100]))


def test_an_unknown_measure_names_the_known_ones(tables: Tables) -> None:
    with pytest.raises(ValueError, match="firing_frequency, energy_top1, energy_top10"):
        sparsity.by_layer(tables.layers, "hoyer")


def test_a_frame_of_another_kind_is_refused_by_its_columns(tables: Tables) -> None:
    with pytest.raises(ValueError, match="lacks the columns sinks, measure, value"):
        sparsity.by_layer(tables.sinks)


def test_bands_of_a_known_population() -> None:
    frequency = [0.0] * 1 + [0.01] * 2 + [0.05, 0.2, 0.3] + [0.4] * 2 + [0.5] + [0.51, 1.0]
    frame = DataFrame({"condition": "real", "frequency": frequency, "layer": 0, "neuron": range(11), "n_tokens": 100})
    share = neurons.bands(frame).set_index("band")["share"] * 11
    assert share.round(9).to_dict() == {"never": 1, "under 5%": 2, "5-30%": 3, "over 50%": 2}


def test_the_spectrum_counts_every_neuron_once(tables: Tables) -> None:
    counts = neurons.spectrum_data(tables.neurons, by=("condition", "layer"))
    np.testing.assert_allclose(counts.groupby(["condition", "layer"])["share"].sum(), 1)
    edge = DataFrame({"condition": "real", "layer": 0, "neuron": [0, 1], "frequency": [0.0, 1.0], "n_tokens": 9})
    assert neurons.spectrum_data(edge)["share"].to_numpy()[[0, -1]].tolist() == [0.5, 0.5]


def test_heat_map_keeps_layers_and_bins_where_they_are() -> None:
    frame = DataFrame({"condition": "real", "layer": [0, 0, 2], "neuron": [0, 1, 0], "frequency": [0.01, 0.99, 0.5]})
    heat = neurons.spectrum_by_layer(frame.assign(n_tokens=5)).data[0]
    assert list(heat.y) == [0, 2]
    z = np.asarray(heat.customdata)
    assert (z[0, 0], z[0, -1], z[1, 25], z.sum()) == (50, 50, 100, 200)


@pytest.mark.parametrize("name", sorted(catalogue.catalogue()))
def test_every_figure_cites_what_is_known_and_names_its_tables(name: str) -> None:
    entry = catalogue.find(name)
    assert entry.name == name and entry.title and entry.needs
    assert set(entry.sources) <= set(BIBTEX)


@pytest.mark.parametrize("name", [n for n in catalogue.catalogue() if n.startswith("sparsity-")])
@pytest.mark.parametrize("width", ["screen", "column", "text", "wide"])
def test_same_tables_same_figure_and_a_caption_with_numbers(name: str, width: theme.Width, tables: Tables) -> None:
    entry = catalogue.find(name)
    again = Tables({k: v.copy() for k, v in tables.items()})
    first = entry.draw(tables, width=width).to_json()
    assert entry.draw(again, width=width).to_json() == first
    assert entry.draw(tables, width=width, dark=True).to_json() != first
    caption = entry.caption(tables)
    assert "2,000 tokens" in caption and "%" in caption
    assert entry.draw(tables).layout.meta["alt"] == caption
    assert len(entry.plotted(tables)) > 0


def test_captions_state_the_means_they_show(tables: Tables) -> None:
    caption = sparsity.by_layer_caption(tables.layers, "firing_frequency")
    assert "trained, real text 40.5%" in caption and "random weights 52.5%" in caption
    assert "95% bootstrap intervals over documents" in caption
    assert "sinks left out" in caption
    assert "included" in sparsity.by_layer_caption(tables.layers, "firing_frequency", sinks="with")


def test_sinks_of_a_layer_stack_to_what_they_hold_together(tables: Tables) -> None:
    first, later, control = sparsity.sinks_by_layer(tables.sinks).data
    assert [first.y[5] + later.y[5], control.y[5]] == pytest.approx([50 + 10 + 50 / 6, 10 + 50 / 6])
    caption = sparsity.sinks_caption(tables.sinks)
    assert "Most in layer 5: 9 first tokens hold 50.0% and 7 later sinks 18.3%, of 2,000 tokens" in caption
    assert "random weights 18.3%" in caption


def test_a_number_without_its_control_says_so(tables: Tables) -> None:
    alone = tables.layers[tables.layers["condition"] == "real"]
    assert "2,000 tokens; no control has been measured yet" in sparsity.by_layer_caption(alone)
    assert "no control" not in sparsity.by_layer_caption(tables.layers)


def test_an_unknown_figure_lists_the_names() -> None:
    with pytest.raises(ValueError, match="sparsity-firing"):
        catalogue.find("sparsity-fire")
