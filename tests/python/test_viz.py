"""Pictures: the right things are drawn, they fit, and wrong shapes are refused."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need vectile[demo]")

from matplotlib.backends.backend_agg import FigureCanvasAgg

from vectile import viz

RNG = np.random.default_rng(0)
WORDS, TARGET = list("abcdef"), ["un", "deux", "trois", ""]


def weights(*shape):
    w = RNG.random(shape)
    return w / w.sum(-1, keepdims=True)


STEPS = np.arange(1, 101)
PICTURES = {
    "loss_curves": lambda: viz.loss_curves(
        {"loss": (STEPS, 1 / STEPS)}, {"held out": (STEPS, STEPS)}
    ),
    "loss_curves_short": lambda: viz.loss_curves({"loss": ([1], [2.0])}, {"none": ([], [])}),
    "loss_curves_nothing": lambda: viz.loss_curves({"loss": ([], [])}, log=True),
    "loss_curves_not_finite": lambda: viz.loss_curves(
        {"a": ([1, 2], [np.nan, np.inf])}, target=1.0
    ),
    "attention_map": lambda: viz.attention_map(weights(6, 6), WORDS, causal=True),
    "attention_heads": lambda: viz.attention_heads(weights(2, 3, 4, 6), TARGET, WORDS),
    "attention_heads_one_layer": lambda: viz.attention_heads(weights(3, 6, 6), WORDS),
    "attention_grid": lambda: viz.attention_grid({str(i): weights(6, 5) for i in range(6)}),
    "cross_attention": lambda: viz.cross_attention(weights(4, 6), WORDS, TARGET),
    "sample_grid": lambda: viz.sample_grid(RNG.random((7, 1, 8, 8)), range(7)),
    "sample_grid_colour": lambda: viz.sample_grid(RNG.random((1, 3, 8, 12)), columns=4),
    "bar_chart": lambda: viz.bar_chart(
        TARGET, {"a": [1, 2, 30, 0], "b": [4, 3, 2, 1]}, title="Bars", ylabel="y", xlabel="x"
    ),
    "bar_chart_nothing": lambda: viz.bar_chart(["a"], {"b": [0.0]}, title="Bars"),
    "embedding_map": lambda: viz.embedding_map(RNG.random((30, 2)), classes=np.arange(30) % 12),
    "embedding_map_words": lambda: viz.embedding_map(RNG.random((4, 2)), TARGET),
    "confusion_matrix": lambda: viz.confusion_matrix([0, 1, 2, 2], [0, 1, 2, 1]),
    "reconstructions": lambda: viz.reconstructions(*RNG.random((2, 5, 1, 8, 8))),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_keeps_within_its_frame(name, tmp_path):
    figure = PICTURES[name]()
    path = viz.save(figure, tmp_path / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    for axes in figure.axes:
        box = axes.get_tightbbox(renderer)
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
    title, subtitle = (text.get_window_extent(renderer) for text in figure.texts[:2])
    assert title.x1 <= width and subtitle.x1 <= width
    tops = [axes.get_tightbbox(renderer).y1 for axes in figure.axes]
    assert max(tops) <= (subtitle.y0 if subtitle.height > 1 else title.y0) + 1


def test_the_confusion_matrix_counts():
    figure = viz.confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0], ["a", "b", "c"])
    axes = figure.axes[0]
    found = {text.get_position(): text.get_text() for text in axes.texts}
    assert found == {(0, 0): "1", (1, 0): "1", (1, 1): "1", (2, 2): "2", (0, 2): "1"}
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "b", "c"]
    assert "4 of 6 right: 66.7%" in figure.texts[1].get_text()


def test_bars_have_their_heights():
    figure = viz.bar_chart(["x", "y"], {"a": [1.5, -2], "b": [3, 4]}, title="Bars")
    heights = [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]
    assert heights == [[1.5, -2], [3, 4]]
    with pytest.raises(ValueError, match="values of a: expected 2, got 1"):
        viz.bar_chart(["x", "y"], {"a": [1]}, title="Bars")


def test_cross_attention_puts_each_weight_under_its_words():
    given = weights(4, 6)
    axes = viz.cross_attention(given, WORDS, TARGET).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == WORDS
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["un", "deux", "trois", "∅"]
    assert np.allclose(np.asarray(axes.images[0].get_array()) ** 2, given)


def test_words_on_top_keep_off_the_subtitle():
    words = ["internationalisation", "b"]
    figure = viz.cross_attention(weights(1, 2), words, ["c"], subtitle="many words " * 12)
    renderer = FigureCanvasAgg(figure).get_renderer()
    room = figure.texts[1].get_window_extent(renderer).y0
    room -= figure.axes[0].get_tightbbox(renderer).y1
    assert room >= 8 * figure.dpi / 72


def test_a_causal_map_leaves_the_future_white():
    shown = viz.attention_map(weights(6, 6), WORDS, causal=True).axes[0].images[0].get_array()
    assert np.array_equal(
        np.ma.getmaskarray(np.ma.masked_invalid(shown)), np.triu(np.ones((6, 6)), 1) > 0
    )


def test_a_row_without_labels_takes_no_room_for_them():
    axes = viz.sample_grid(RNG.random((6, 1, 8, 8)), ["a", "", "", "", "", ""], columns=2).axes
    assert [ax.get_title() for ax in axes] == ["a", "", "", "", "", ""]
    bottoms = [ax.get_position().y0 for ax in axes]
    assert bottoms[0] == bottoms[1]
    assert np.isclose(bottoms[0] - bottoms[2], bottoms[2] - bottoms[4])
    tight = viz.sample_grid(RNG.random((6, 1, 8, 8)), columns=2)
    all_named = viz.sample_grid(RNG.random((6, 1, 8, 8)), "abcdef", columns=2)
    one = axes[0].figure.get_figheight()
    assert tight.get_figheight() < one < all_named.get_figheight()


@pytest.mark.parametrize("count", [20, 40, 5000])
def test_the_average_of_a_short_run_follows_it_too(count):
    values = np.linspace(2, 1, count)
    average = viz.loss_curves({"loss": (range(count), values)}).axes[0].lines[1].get_ydata()
    assert abs(average[-1] - 1) < 0.06


def test_samples_are_ink_on_paper():
    axes = viz.sample_grid(np.array([[[[0.0, 1.0]]]])).axes[0]
    assert np.asarray(axes.images[0].get_array()).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: viz.attention_map(weights(5, 6), WORDS), "weights shape"),
        (lambda: viz.cross_attention(weights(6, 4), WORDS, TARGET), "weights shape"),
        (lambda: viz.attention_heads(weights(6, 6), WORDS), "weights shape"),
        (lambda: viz.attention_map(np.zeros((0, 0)), []), "weights shape"),
        (lambda: viz.sample_grid(np.zeros((3, 8, 8))), "images shape"),
        (lambda: viz.sample_grid(np.zeros((0, 1, 8, 8))), "images shape"),
        (lambda: viz.sample_grid(np.zeros((2, 1, 8, 8)), ["a"]), "labels length: expected 2"),
        (lambda: viz.reconstructions(np.zeros((2, 1, 8, 8)), np.zeros((3, 1, 8, 8))), "rows"),
        (lambda: viz.embedding_map(np.zeros((4, 3))), "points shape"),
        (lambda: viz.embedding_map(np.zeros((4, 2)), ["a"]), "labels length"),
        (lambda: viz.embedding_map(np.zeros((40, 2)), classes=range(40)), "at most 20"),
        (lambda: viz.confusion_matrix([0, 1], [0]), "predicted length"),
    ],
)
def test_wrong_shapes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_passages_are_cut_to_their_columns(tmp_path):
    made = viz.passages({"one": "a$b$c\n" + 50 * "x", "two": "\tt\x07ab\n" * 9}, width=12, lines=3)
    viz.save(made, tmp_path / "picture.png")
    first, second = (made.texts[i].get_text().split("\n") for i in (3, 5))
    assert first == [r"a\$b\$c", 11 * "x" + "…"]
    assert second == ["    t·ab"] * 3
    renderer = FigureCanvasAgg(made).get_renderer()
    width = made.get_size_inches()[0] * made.dpi
    boxes = [made.texts[i].get_window_extent(renderer) for i in (3, 5)]
    assert boxes[0].x1 < boxes[1].x0 and boxes[1].x1 < width and min(b.y0 for b in boxes) > 0
