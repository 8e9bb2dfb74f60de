"""The report of a made-up study: the page, its Markdown and its pictures."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from slm_core.studies.report import numbers, tables, write_report
from slm_core.studies.report.markdown import escaped
from slm_core.studies.report.sections import answer, sections
from slm_core.studies.verdict import Verdict
from tests.core.studies.report.made_up_study import NAMES, ODD_NAME, Study, many, study

TITLES = [
    "The question and the answer",
    "The variants",
    "Learning curves",
    "Final losses per seed",
    "Loss over the tuned settings",
    "Tokens to reach the baseline's loss",
    "What differs in the configs",
    "The agreement of the twins",
    "Failures",
    "Versions, machine and command",
    "How to read this page",
]
FEW = {"points": 4, "failed": False}
READ = {"h2", "p", "th", "td", "caption", "title", "desc", "text"}
"""Elements whose text the tests read."""
VOID = {"meta", "link", "br", "img", "hr"}


class Page(HTMLParser):
    """Reads a page: its elements with their attributes, and the text of some of them."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.setdefault(tag, [])
        if tag not in VOID:
            self.open.append(tag)
            self.texts[tag].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        for tag in READ.intersection(self.open):
            self.texts[tag][-1] += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def written(made: Study, folder: Path) -> tuple[str, str]:
    """Returns report.html and report.md."""
    write_report(made.result, made.comparisons, folder)
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


def assert_page_is_whole(html: str) -> Page:
    page = Page(html)
    assert page.open == [], "every element is closed"
    identifiers = page.attributes("id")
    assert len(identifiers) == len(set(identifiers)), "identifiers are unique"
    links = [value for value in page.attributes("href") if value.startswith("#")]
    labels = [part for value in page.attributes("aria-labelledby") for part in value.split()]
    clips = re.findall(r"url\(#([^)]*)\)", html)
    assert {value[1:] for value in links} | set(labels) | set(clips) <= set(identifiers), "all that is named is there"
    assert page.texts["h2"] == TITLES
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    made = study()
    write_report(made.result, made.comparisons, folder)
    return folder


@pytest.fixture(scope="module")
def html(folder) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "report.md").read_text()


def test_the_page_has_every_section_in_order(html):
    page = assert_page_is_whole(html)
    elements = [tag for tag, _ in page.elements]
    assert (elements.count("html"), elements.count("main"), elements.count("h1")) == (1, 1, 1)
    assert ("html", {"lang": "en"}) in page.elements
    assert any(a.get("name") == "viewport" and "width=device-width" in a["content"] for _, a in page.elements)


def test_the_page_needs_no_network_and_no_script(html):
    page = Page(html)
    references = [value for name in ("href", "src", "srcset", "data") for value in page.attributes(name)]
    assert all(value.startswith(("#", "data:")) for value in references)
    assert not {tag for tag, _ in page.elements} & {"script", "img", "iframe", "object", "embed"}
    assert "http" not in html and "@import" not in html
    assert all(value.startswith("#") for value in re.findall(r"url\(([^)]*)\)", html))


def test_every_chart_says_in_words_and_numbers_what_it_shows(html):
    page = Page(html)
    charts = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(charts) == 7  # four of curves, one of differences, one of trials, one of tokens
    assert all(attributes["role"] == "img" for attributes in charts)
    assert len(page.texts["desc"]) == len(charts)
    assert all(re.search(r"\d\.\d\d", text) and text.endswith(".") for text in page.texts["desc"])
    assert all(page.texts["title"])


def test_charts_take_the_colors_of_the_page(html):
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--series-1)" in drawings and "var(--ink)" in drawings
    assert re.findall(r"#[0-9a-f]{6}\b", drawings) == []
    variables = set(re.findall(r"var\((--[\w-]+)\)", html))
    root, dark = html.split("prefers-color-scheme: dark")
    for part in (root, dark):
        assert variables <= set(re.findall(r"(--[\w-]+):", part))


def test_every_cell_of_a_table_has_a_header_with_a_scope(html):
    page = Page(html)
    scopes = [attributes["scope"] for tag, attributes in page.elements if tag == "th"]
    assert set(scopes) == {"col", "row"}
    assert len(page.texts["caption"]) == len(page.texts["thead"]) == 9


def test_names_are_escaped(html, text):
    assert "<i>" not in html and "<i>" not in text
    assert ODD_NAME in Page(html).texts["th"]
    assert ODD_NAME in Page(html).texts["text"]
    assert 'grouped &amp; &lt;i>multi&lt;/i> \\| "query"' in text
    assert "the state <params> was" in "".join(Page(html).texts["td"])


def test_a_study_on_a_task_shows_accuracies():
    made = study(failed=False).result
    assert "accuracy" not in tables.variants_table(made, []).head
    cells = [
        dataclasses.replace(c, evaluations=(dataclasses.replace(c.evaluations[-1], accuracy=0.5 + c.seed / 10),))
        for c in made.cells
    ]
    made = dataclasses.replace(made, fields=made.fields | {"data.source": "task"}, cells=tuple(cells))
    table = tables.variants_table(made, [])
    row = dict(zip(table.head, table.rows[0], strict=True))
    assert row["accuracy"] == "0.700 (0.500 to 0.900)"


def test_markdown_shows_the_same_numbers_as_the_page(html, text):
    cells = [cell for cell in Page(html).texts["td"] if re.search(r"\d", cell)]
    assert len(cells) > 100
    for cell in cells:
        assert f"| {escaped(cell)} " in text
    pictures = re.findall(r"\]\((report-[\w-]+\.png)\)", text)
    assert len(pictures) == 7


def test_pictures_lie_beside_the_markdown(folder, text):
    pictures = re.findall(r"\]\((report-[\w-]+\.png)\)", text)
    assert sorted(pictures) == sorted(path.name for path in folder.glob("*.png"))
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_the_table_of_variants_has_the_numbers_of_the_study():
    made = study()
    table = tables.variants_table(made.result, made.comparisons)
    comparison = made.comparisons[0]
    row = dict(zip(table.head, table.rows[1], strict=True))
    assert row["variant"] == comparison.variant == ODD_NAME
    assert float(row["difference"].replace("−", "-")) == pytest.approx(comparison.pooled.mean, abs=5.1e-5)
    assert row["rounding floor"] == numbers.nats(comparison.floor)
    assert row["verdict"] == comparison.verdict.kind == "better"
    losses = [cell.loss for cell in made.result.cells if cell.variant == ODD_NAME]
    assert row["final loss, nats"].startswith(f"{sum(losses) / len(losses):.4f} ± ")


def test_what_was_adjusted_is_marked_and_explained(text):
    assert re.search(r"\| latent +\| 2 +\| 136 \\\* +\| 0.002 \\\* +\|", text)
    assert "- latent: width 136 instead of 128: 1.04M parameters" in text


def test_the_same_study_gives_the_same_bytes(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        written(study(frameworks=["torch"], **FEW), folder)
    names = sorted(path.name for path in first.iterdir())
    assert len(names) == 7 and names == sorted(path.name for path in second.iterdir())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_pictures_of_an_older_report_go(tmp_path):
    (tmp_path / "report-old.png").write_bytes(b"")
    (tmp_path / "other.png").write_bytes(b"")
    written(study(NAMES[:1], [0.0], finished=False, trials=False), tmp_path)
    assert [path.name for path in tmp_path.glob("*.png")] == ["other.png"]


@pytest.mark.parametrize(
    ("made", "charts"),
    [
        (study(frameworks=["flax"], **FEW), 5),
        (study(seeds=1, frameworks=["torch"], **FEW), 5),
        (study(["a", "b"], [0.0, -0.01], frameworks=["torch"], trials=False, **FEW), 4),
        (study(["a"], [0.0], frameworks=["torch"], trials=False, **FEW), 1),
        (study(finished=False), 1),
        (study(finished=False, trials=False), 0),
        (study(points=1, seeds=2, frameworks=["torch"], trials=False, failed=False), 4),
        (many(20, frameworks=["torch"], seeds=2, trials=False, **FEW), 8),
    ],
    ids=["one twin", "one seed", "two variants", "one variant", "not finished", "nothing", "one point", "20 variants"],
)
def test_a_report_of_any_size_is_whole(made, charts, tmp_path):
    html, text = written(made, tmp_path)
    page = assert_page_is_whole(html)
    assert [tag for tag, _ in page.elements].count("svg") == charts
    assert "nan" not in re.sub("<style>.*?</style>", "", html, flags=re.DOTALL).lower()
    assert all(f"## {title}" in text for title in TITLES)


def test_the_answer_names_the_variants_that_are_better_than_the_baseline():
    made = study()
    one = answer(made.result, made.comparisons)
    assert one.startswith(f"{ODD_NAME} is better than the baseline, multi-head: its loss is 0.01")
    none = "No variant is shown to be better than the baseline, multi-head."
    assert answer(made.result, made.comparisons[1:]) == f"{none} Undecided: 1 of 2."
    assert answer(made.result, made.comparisons[2:]) == none
    assert answer(made.result, []).startswith("There is no answer yet")
    other = dataclasses.replace(made.comparisons[1], verdict=Verdict("better", ""))
    both = answer(made.result, [other, made.comparisons[0]])
    assert both.startswith(f"2 variants are better than the baseline, multi-head: {ODD_NAME} by 0.01")
    assert "not tested against each other" in both


def test_a_baseline_called_baseline_is_not_named_twice():
    made = study(["baseline", "wide"], [0.0, -0.1])
    assert answer(made.result, made.comparisons).startswith("wide is better than the baseline: its loss is 0.099")


def test_a_study_of_one_variant_has_nothing_to_compare():
    made = study(["small"], [0.0])
    assert answer(made.result, made.comparisons) == "There is nothing to compare: the study has one variant, small."
    (section,) = [each for each in sections(made.result, made.comparisons) if each.anchor == "answer"]
    assert "1 variant of configs/default.py" in section.paragraphs[0]


def test_the_page_says_what_is_missing(html):
    page = Page(html)
    assert any(text.startswith("1 of 40 runs has no final loss") for text in page.texts["p"])
    made = study()
    assert tables.failures_table(made.result).rows == (("no positions", "Flax", "4", made.result.cells[-1].error),)
    fewer = dataclasses.replace(made.result, cells=made.result.cells[:-1])
    assert tables.failures_table(fewer).rows == (("no positions", "Flax", "4", "not started"),)


def test_a_whole_study_lacks_nothing(tmp_path):
    _, text = written(study(["a", "b"], [0.0, 0.1], seeds=2, trials=False, **FEW), tmp_path)
    assert "no final loss" not in text
    assert "Every run has finished." in text
