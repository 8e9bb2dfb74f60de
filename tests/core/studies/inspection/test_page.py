"""The page of a made-up run: its sections, tables, charts and maps."""

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.image import imread

from slm_core.studies.inspection import write_page
from slm_core.studies.inspection.charts import head_charts, lens_charts, norm_charts
from slm_core.studies.inspection.lens import layer_lens
from slm_core.studies.inspection.maps import COLOR, described, picture
from slm_core.studies.inspection.tables import MOST_HEADS, attention_name, heads_table, modules_table, norms_table
from tests.core.studies.inspection.made_up_run import inside, lower
from tests.core.studies.report.test_report import Page

TITLES = [
    "The run", "Induction heads", "Attention on the prompt", "Logit lens", "Activations and gradients", "The modules",
]  # fmt: skip


def written(made, folder) -> str:
    write_page(made, folder / "inspect.html")
    return (folder / "inspect.html").read_text()


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    return written(inside(), tmp_path_factory.mktemp("page"))


def test_the_page_is_whole_and_needs_no_network_and_no_script(html):
    page = Page(html)
    assert page.open == [] and page.texts["h2"] == TITLES
    identifiers = page.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    references = page.attributes("href")
    assert {value[1:] for value in references if value.startswith("#")} <= set(identifiers)
    assert all(value.startswith(("#", "data:")) for value in references)
    assert {part for value in page.attributes("aria-labelledby") for part in value.split()} <= set(identifiers)
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed"}
    assert "http" not in html and "@import" not in html
    assert "<i>&" not in html and "<nowhere>" not in html and "&lt;nowhere&gt;" in html


def test_every_drawing_says_in_words_what_it_shows(html):
    page = Page(html)
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert all(a.get("role") == "img" or a.get("aria-hidden") == "true" for a in drawings)
    labels = [a["aria-label"] for a in drawings if "aria-label" in a]
    assert len(labels) == 6 and all(
        re.search(r"layer \d, head \d: Mean weight of a token: \d", text) for text in labels
    )
    assert [a for tag, a in page.elements if tag == "details" and "open" in a] == [{"open": ""}] * 2


@pytest.mark.parametrize(
    ("made", "charts", "text"),
    [
        (inside(), 5, "The largest induction score is 0.60: layer 2, head 1."),
        (inside(steps=1, details=False), 1, "There is one checkpoint"),
        (inside(layers=1, steps=1, details=False), 0, "The run has no details.jsonl."),
        (inside(attention=False), 3, "No layer of this model has softmax attention"),
        (inside(layers=12, heads=12), 7, "6 other heads"),
    ],
    ids=["all", "one checkpoint", "one layer", "no attention", "many heads"],
)  # fmt: skip
def test_a_page_of_any_run_is_whole(made, charts, text, tmp_path):
    html = written(made, tmp_path)
    page = Page(html)
    assert page.open == [] and page.texts["h2"] == TITLES
    assert [tag for tag, _ in page.elements].count("figure") == charts
    assert (text if text != "6 other heads" else "138 other heads are grey") in html
    assert "nan" not in re.sub(r"<style>.*?</style>|base64,[^\"]*", "", html, flags=re.DOTALL).lower()


def test_the_same_run_gives_the_same_bytes(tmp_path, html):
    assert written(inside(), tmp_path) == html


def test_layers_that_are_alike_share_their_rows():
    table = modules_table(inside(layers=4))
    names = [row[0].strip() for row in table.rows]
    assert names == ["the model", "embed", "layers.0 to layers.2, each of 3", "mlp", "up_proj", "layers.3", "mlp",
                     "up_proj", "logits"]  # fmt: skip
    depths = [len(row[0]) - len(row[0].lstrip()) for row in table.rows]
    assert depths == [0, 2, 2, 4, 6, 2, 4, 6, 2]
    model, embed, layer, _, up, *_ = table.rows
    assert model[3] == str(28 + 4 * 20) and layer[3] == "20" and up[2] == "weight 4 × 4, bias 4"
    assert (embed[4], up[5], up[6]) == ("112 B", "100 FLOP", "1 × 5 × 4")


def test_the_table_of_heads_has_the_largest_scores():
    few, many = heads_table(inside().heads[3]), heads_table(inside(layers=12, heads=12).heads[3])
    assert [row[0] for row in few.rows] == [f"layer {i}, head {h}" for i in range(3) for h in range(2)]
    assert len(many.rows) == MOST_HEADS and f"the {MOST_HEADS} of 144 heads" in many.caption
    scores = [float(row[1]) for row in many.rows]
    assert scores == sorted(scores, reverse=True) and scores[:12] == [0.6] * 12


def test_the_norm_of_a_layer_is_that_of_all_its_parameters():
    table = norms_table(inside())
    assert table.rows[0] == ("layers.0", "60", "60", "60", "5", "5")  # 3 and 4
    assert table.caption.startswith("At the update of step 40")
    made = inside()
    made.details[-1]["gradient_norm/layers.1.a"] = None  # it was not finite
    assert norms_table(made).rows[1][-1] == "–"
    assert "layers.1 not finite" in norm_charts(made)[1].description


def test_charts_say_where_lines_begin_and_end():
    induction, *_ = head_charts(inside().heads, "induction", "Induction score")
    assert "layer 2, head 1 from 0.20 to 0.60" in induction.description
    assert "after layer 0 3.0000; after layer 1 2.0000" in lens_charts(inside())[0].description
    assert "layers.2 60" in norm_charts(inside())[0].description


def test_a_map_is_as_opaque_as_the_root_of_the_weight():
    weights = lower(np.random.default_rng(1).random((6, 6)))
    data = base64.b64decode(picture(weights).partition(",")[2])
    pixels = imread(io.BytesIO(data), format="png")
    assert pixels.shape == (6, 6, 4)
    np.testing.assert_allclose(pixels[..., 3] ** 2, weights, atol=5e-3)
    np.testing.assert_allclose(pixels[3, 1, :3], np.array(COLOR) / 255, atol=2e-3)
    assert not pixels[..., 3][np.triu_indices(6, 1)].any()


def test_a_map_is_described():
    weights = np.eye(4)
    weights[3] = [0.7, 0.1, 0.1, 0.1]
    text = described(weights, ("a", "b", "c", "d"))
    assert text.startswith("Mean weight of a token: 0.70 to itself, 0.03 to the one before, 0.23 to the first.")
    assert text.endswith("0.70, is from d (position 3) to a (position 0).")


def test_names_of_attention():
    assert attention_name("layers.11.attention.attend") == "layer 11"
    assert attention_name("layers.0.attention.attend_2") == "layer 0, map 2"


def test_a_lens_is_read():
    p = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.2, 0.7, 0.1]])
    lens = layer_lens("layers.0", np.log(p), np.array([2, 0, 2]), np.array([True, True]))
    assert lens.likeliest.tolist() == [0, 2, 1] and lens.probability == pytest.approx([0.5, 0.75, 0.7])
    assert lens.loss == pytest.approx(-np.log(0.5 * 0.75) / 2)
    one = layer_lens("layers.0", np.log(p), np.array([2, 0, 2]), np.array([False, True]))
    assert one.loss == pytest.approx(-np.log(0.75))
    assert np.isnan(layer_lens("layers.0", np.log(p), np.array([2, 0, 2]), np.array([False, False])).loss)
