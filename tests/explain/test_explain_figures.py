"""The pictures: what they draw is what they were given, whatever the text, without a warning."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import explain_samples
import numpy as np
import pytest
from numpy.testing import assert_allclose

from minillm import explain
from minillm.explain.embed import figure_bytes
from minillm.explain.images import mosaic
from minillm.explain.style import readable_token, spread

STRANGE = ["$x$", "<b>", "漢", "😀", "\x00", "\n", " ", "\t", "", b"\xff", "$", "\\frac{"]


def texts(figure) -> list[str]:
    """Every visible text of a figure, as drawn, in no special order."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def labels_apart(figure) -> None:
    """No tick label of an axis overlaps its neighbour."""
    figure.draw_without_rendering()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            boxes = [t.get_window_extent() for t in axis.get_ticklabels() if t.get_text()]
            along = "x0" if axis is ax.xaxis else "y0"
            boxes.sort(key=lambda box: getattr(box, along))
            for one, other in pairwise(boxes):
                overlap = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
                assert min(overlap) < 1.0, f"tick labels overlap by {overlap} pixels"


@pytest.fixture(scope="module")
def figures():
    return explain_samples.all_figures()


def test_every_picture_renders_with_labels_apart(figures):
    for name, figure in figures.items():
        labels_apart(figure)
        data, media, width, height = figure_bytes(figure, raster=True)
        assert data.startswith(b"\x89PNG"), name
        assert media == "image/png"
        assert 300 < width < 740, f"{name} is {width} pixels wide, the column has 736"
        assert height > 80


def test_lines_become_svg_and_images_png(figures):
    assert figure_bytes(figures["loss"])[1] == "image/svg+xml"
    assert figure_bytes(figures["grid_plain"])[1] == "image/png"
    assert figure_bytes(figures["latent_many"])[1] == "image/png", "1,500 marks are smaller as PNG"
    data, media, width, _ = figure_bytes(figures["grid_plain"], raster=False)
    assert media == "image/svg+xml"
    assert b"<svg" in data
    assert width == pytest.approx(figure_bytes(figures["grid_plain"])[2], rel=0.02)


def test_no_pyplot_and_no_matplotlib_before_the_first_picture():
    code = (
        "import sys, numpy as np, minillm.explain as e\n"
        "print([m for m in ('matplotlib', 'rich') if m in sys.modules])\n"
        "e.image_grid(np.eye(4)[None])\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.stdout.split("\n")[:2] == ["[]", "False"], run.stdout + run.stderr


def test_the_users_matplotlib_settings_are_left_alone():
    import matplotlib

    with matplotlib.rc_context({"font.size": 33.0, "axes.facecolor": "black", "text.color": "red"}):
        before = dict(matplotlib.rcParams)
        figure = explain.loss_curves({"train": [(0, 2.0), (1, 1.0)]})
        figure_bytes(figure)
        assert dict(matplotlib.rcParams) == before
        assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)


# Curves


def test_loss_curves_draw_every_value_and_label():
    figure = explain.loss_curves({"train": [(0, 4.0), (10, 1.5)]}, {"guess $a$": 3.25}, xlabel="epoch", ylabel="nats")
    train, guess = figure.axes[0].lines[:2]
    assert_allclose(train.get_xydata(), [[0, 4.0], [10, 1.5]])
    assert_allclose(guess.get_ydata(), [3.25, 3.25])
    found = texts(figure)
    assert {"train 1.5", r"guess \$a\$ 3.25", "epoch", "nats"} <= set(found)


def test_loss_curve_labels_do_not_overlap():
    history = {name: [(0, 3.0), (1, 1.0 + 0.001 * i)] for i, name in enumerate("abc")}
    figure = explain.loss_curves(history, {"d": 1.0, "e": 3.0, "a much longer name that needs two lines": 1.01})
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 6
    for below, above in pairwise(boxes):
        assert above.y0 >= below.y1 - 0.5


def test_loss_curves_accept_gaps_and_refuse_nonsense():
    figure = explain.loss_curves({"train": [(0, 2.0), (1, float("nan")), (2, 1.0)]})
    assert np.isnan(figure.axes[0].lines[0].get_ydata()[1])
    with pytest.raises(ValueError, match="history is empty"):
        explain.loss_curves({})
    with pytest.raises(ValueError, match=r"none of its 1 values is finite"):
        explain.loss_curves({"train": [(0, float("nan"))]})
    with pytest.raises(ValueError, match=r"\(step, value\) pairs"):
        explain.loss_curves({"train": [1.0, 2.0]})
    with pytest.raises(ValueError, match="log=False"):
        explain.loss_curves({"train": [(0, 1.0), (1, 0.0)]}, log=True)
    with pytest.raises(ValueError, match="logarithmic"):
        explain.loss_curves({"train": [(0, 1.0), (1, 0.5)]}, {"zero": 0.0}, log=True)


# Images


def test_mosaic_places_every_image():
    images = np.arange(2 * 3 * 4 * 5, dtype=float).reshape(2, 3, 4, 5)
    canvas = mosaic(images, gap_y=2, gap_x=1)
    assert canvas.shape == (2 * 6 - 2, 3 * 6 - 1)
    for i in range(2):
        for j in range(3):
            assert_allclose(canvas[6 * i : 6 * i + 4, 6 * j : 6 * j + 5], images[i, j])
    assert np.isnan(canvas).sum() == canvas.size - images.size


def drawn(figure) -> np.ndarray:
    return np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)


def test_image_grid_fills_the_last_row_with_white():
    images = np.random.default_rng(0).random((5, 4, 3))
    canvas = drawn(explain.image_grid(images, columns=3))
    assert canvas.shape == (4 + 1 + 4, 3 * 4 - 1)
    assert_allclose(canvas[5:9, 4:7], images[4])
    assert np.isnan(canvas[5:9, 8:11]).all()


def test_reconstructions_share_the_originals_grey_scale():
    originals = np.array([[0.0, 1.0, 0.5, 0.5]])
    figure = explain.reconstructions(originals, originals * 5, (2, 2), extra={"PCA": originals.reshape(1, 2, 2) * 0.5})
    assert figure.axes[0].images[0].get_clim() == (0.0, 1.0)
    canvas = drawn(figure)
    for row, factor in enumerate((1, 5, 0.5)):
        assert_allclose(canvas[3 * row : 3 * row + 2], originals.reshape(2, 2) * factor)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["original", "model", "PCA"]


def test_reconstructions_refuse_rows_that_do_not_fit():
    with pytest.raises(ValueError, match=r"row 'PCA' has shape \(3, 4\), expected \(2, 4\)"):
        explain.reconstructions(np.zeros((2, 4)), np.zeros((2, 4)), (2, 2), extra={"PCA": np.zeros((3, 4))})


def test_traversal_labels_must_fit():
    with pytest.raises(ValueError, match="2 rows of images but 1 row_labels"):
        explain.traversals(np.zeros((2, 3, 4, 4)), ["one"])


def test_weights_are_scaled_per_unit_and_centred_on_zero():
    figure = explain.weights_as_images(np.array([[2.0, -4.0], [0.0, 0.0]]), (1, 2), columns=2)
    assert_allclose(drawn(figure)[0, [0, 1, 3, 4]], [0.5, -1.0, 0.0, 0.0])
    assert figure.axes[0].images[0].get_clim() == (-1.0, 1.0)


def test_images_that_are_not_arrays_of_numbers_are_refused():
    with pytest.raises(ValueError, match=r"images: expected shape \(N, h, w\), got \(4, 4\)"):
        explain.image_grid(np.zeros((4, 4)))
    with pytest.raises(TypeError, match="expected a numeric NumPy array"):
        explain.image_grid([object()])
    with pytest.raises(ValueError, match="3 images but 1 titles"):
        explain.image_grid(np.zeros((3, 2, 2)), titles=["a"])
    with pytest.raises(ValueError, match="no finite value"):
        explain.image_grid(np.full((3, 2, 2), np.nan))


# Latent space


def test_projection_is_pca():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 5)) @ np.diag([1.0, 5.0, 0.5, 3.0, 0.1]) + 7.0
    plane, shares = explain.project_to_plane(points)
    singular = np.linalg.svd(points - points.mean(0), compute_uv=False)
    assert_allclose(plane.mean(0), 0.0, atol=1e-12)
    assert_allclose((plane**2).sum(0), singular[:2] ** 2, rtol=1e-10)
    assert_allclose((plane[:, 0] * plane[:, 1]).sum(), 0.0, atol=1e-8)
    assert_allclose(shares, singular[:2] ** 2 / (singular**2).sum(), rtol=1e-10)
    assert_allclose(explain.project_to_plane(points)[0], plane)


def test_projection_of_equal_points_is_zero():
    plane, shares = explain.project_to_plane(np.ones((4, 3)))
    assert not plane.any()
    assert not shares.any()
    with pytest.raises(ValueError, match="at least 2 points and 2 dimensions"):
        explain.project_to_plane(np.ones((4, 1)))


def test_latent_map_draws_every_point_in_its_class():
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(60, 2)), np.repeat(np.arange(12), 5)
    figure = explain.latent_map(points, labels)
    scatters = figure.axes[0].collections
    assert len(scatters) == 12
    for label, scatter in enumerate(scatters):
        assert_allclose(scatter.get_offsets(), points[labels == label])
    looks = {(tuple(s.get_facecolor()[0]), len(s.get_paths()[0].vertices)) for s in scatters}
    assert len(looks) == 12, "colour and marker together tell the classes apart"


def test_latent_map_says_that_it_projects(figures):
    assert any("principal direction 1 of 6 latents" in text for text in texts(figures["latent_projected"]))
    assert "latent 1" in texts(figures["latent_plane"])


def test_values_that_are_not_finite_are_refused_where_they_would_mislead():
    points = np.zeros((4, 3))
    points[1, 2] = np.nan
    with pytest.raises(ValueError, match="points: 1 of 12 values are NaN or infinite"):
        explain.latent_map(points, np.arange(4))
    with pytest.raises(ValueError, match="weights: 4 of 4 values"):
        explain.attention_maps(np.full((1, 2, 2), np.nan), ["a", "b"])


def test_class_names_do_not_cover_each_other():
    figure = explain.latent_map(np.random.default_rng(0).normal(size=(300, 2)), np.arange(300) % 10)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[:i])


# Attention and text


def test_attention_bars_stand_beside_their_rows():
    weights = np.array([[0.1, 0.6, 0.2, 0.1]])
    figure = explain.attention_over_image(np.eye(4)[None], weights, ["cat"], ["dog"])
    bars = figure.axes[0].patches
    assert_allclose([bar.get_y() + bar.get_height() / 2 for bar in bars], [0.5, 1.5, 2.5, 3.5])
    assert_allclose([bar.get_width() / bars[1].get_width() for bar in bars], weights[0] / 0.6)
    assert "says cat, is dog" in texts(figure)
    with pytest.raises(ValueError, match="3 steps do not divide the 4 rows"):
        explain.attention_over_image(np.eye(4)[None], np.ones((1, 3)) / 3, [0], [0])


def test_attention_maps_draw_every_head():
    weights = np.random.default_rng(0).dirichlet(np.ones(3), (5, 2))  # (H, T, S)
    figure = explain.attention_maps(weights, ["a", " b"], ["x", "\n", "z"])
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images and ax.get_title()]
    assert_allclose(np.stack(shown), weights)
    assert {"a", "␣b", "x", "↵", "z", "head 5"} <= set(texts(figure))
    with pytest.raises(ValueError, match="need 2 query and 3 key labels, got 2 and 2"):
        explain.attention_maps(weights, ["a", "b"])


@pytest.mark.parametrize("length", [1, 64, 150])
def test_attention_maps_of_any_length(length):
    weights = np.tril(np.ones((1, length, length)))
    labels_apart(explain.attention_maps(weights / weights.sum(-1, keepdims=True), ["w"] * length))


def test_next_token_bars_add_up():
    probabilities = np.array([0.1, 0.5, 0.25, 0.15])
    figure = explain.next_token_bars(["a", " ", "c", "d"], probabilities, k=2, context="line\nend  ")
    assert_allclose([bar.get_width() for bar in figure.axes[0].patches], [50, 25, 25])
    assert {"␣", "c", "2 others", "after “line↵end␣␣”"} <= set(texts(figure))
    with pytest.raises(ValueError, match="softmax"):
        explain.next_token_bars(["a"], np.array([-1.0]))
    with pytest.raises(ValueError, match="1 tokens but 2 probabilities"):
        explain.next_token_bars(["a"], np.array([0.5, 0.5]))


def test_strange_text_is_drawn_as_it_stands():
    n = len(STRANGE)
    weights = np.full((1, n, n), 1 / n)
    names = [str(s) for s in STRANGE]
    everything = " ".join(names)
    for figure in (
        explain.attention_maps(weights, STRANGE, names=[everything]),
        explain.next_token_bars(STRANGE, np.full(n, 1 / n), k=n, context=everything),
        explain.loss_curves({name + ".": [(0, 1.0), (1, 0.5)] for name in names}, title=everything, ylabel=everything),
        explain.latent_map(np.eye(n)[:, :2], np.arange(n), names=names, title=everything),
        explain.image_grid(np.zeros((n, 2, 2)), titles=names),
        explain.traversals(np.zeros((n, 2, 2, 2)), names, ["$a$", "漢"]),
    ):
        figure_bytes(figure, raster=True)  # a missing glyph or a formula would warn, and warnings are errors


@pytest.mark.parametrize(
    ("token", "label"),
    [(" the", "␣the"), ("\n", "↵"), ("\t", "⇥"), ("", "∅"), (b"\xff", "\\xff"), ("漢", "U+6F22"), ("$", r"\$"),
     ("x" * 30, "x" * 13 + "…"), (7, "7")],
)  # fmt: skip
def test_readable_token(token, label):
    assert readable_token(token) == label


def test_spread_keeps_order_and_distance():
    assert spread([], []) == []
    assert spread([0.2, 0.8], [0.1, 0.1]) == [0.2, 0.8]
    placed = spread([0.01, 0.02, 0.0, 0.9], [0.1] * 4)
    assert sorted(range(4), key=placed.__getitem__) == [2, 0, 1, 3]
    assert np.diff(sorted(placed)).min() > 0.1 - 1e-4
    assert min(placed) >= 0.05 - 1e-4


# The terminal


def test_terminal_table_prints_text_as_it_stands():
    import io

    from rich.console import Console

    rows = [["[red]vae[/red]", 1234.5, None], ["gpt", 0.0123456, 2]]
    table = explain.terminal_table(rows, ["model", "loss", "KL"], title="[b]Done[/b]")
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    printed = console.file.getvalue()
    for text in ("[red]vae[/red]", "[b]Done[/b]", "1,234", "0.01235", "–"):
        assert text in printed
    with pytest.raises(ValueError, match="row 0 has 1 cells"):
        explain.terminal_table([[1]], ["a", "b"])


def test_metric_rows_show_losses_too():
    rows = explain.metric_rows(explain_samples.metrics())
    assert [row[0] for row in rows if row[0]] == ["✓", "✓", "✗", "✓", "✓", "✗"]
    assert rows[:4] == [
        ["✓", "Reconstruction error, MSE per pixel (lower is better)", 0.0123],
        ["", "  to beat: PCA with 8 numbers", 0.0421],
        ["", "  to reach: perfect copy", 0.0],
        ["✓", "Test accuracy, % (higher is better)", 96.4],
    ]
