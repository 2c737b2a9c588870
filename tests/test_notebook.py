"""What a notebook shows: tables that are text alone, pictures that stand alone, bars in a cell; and pandas."""

import base64
import dataclasses
import re
import subprocess
import sys
import types
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from lm_cases import make_pool

import edjax
from edjax.data.features import Features
from edjax.data.stream import Stream
from edjax.evaluation.result import Evaluation
from edjax.keep import notebook, progress
from edjax.keep.errors import DataError, EnvError, UsageError
from edjax.study.analysis import STATISTIC
from edjax.study.results import RunResults

HOSTILE = "<script>alert(1)</script> & <img src=x onerror=y>"


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data + "\n"


def features(n=20):
    rng = np.random.default_rng(0)
    facts = {"n_prompt_tokens": np.arange(n), "generated": np.asarray([HOSTILE] * n, object)}
    scores = {"mean_nll": rng.random(n, np.float32)}
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return Features(tuple(f"r{i}" for i in range(n)), x, scores, facts, "d", {"shape": np.zeros((n, 2), np.float32)})


def results(**other):
    points = [{"budget": b, "mean": 2 - b / 100, "low": 1.9 - b / 100, "high": 2.1 - b / 100, "n": 3} for b in (50, 99)]
    curves = {"random": points, "<b>k_center": [p | {"mean": p["mean"] - 0.1} for p in points]}
    metric = {"name": "response_loss", "higher_is_better": False, "statistic": STATISTIC}
    return RunResults({"title": f"Run {HOSTILE}", "verdict": HOSTILE, "metric": metric, "curves": curves} | other)


def things():
    found = features()
    pool = make_pool([(HOSTILE, "yes")] * 20)
    chosen = edjax.select(found, "k_center", 7, normalise="l2")
    tried = Evaluation({HOSTILE: 1.5}, {HOSTILE: 3}, [{}] * 3, 1.0, macro={HOSTILE: 1.25}, groups=2)
    return {"pool": pool, "features": found, "selection": chosen, "evaluation": tried, "run": results()}


@pytest.mark.parametrize("name", ["pool", "features", "selection", "evaluation", "run"])
def test_a_thing_is_a_table_of_text(name):
    thing = things()[name]
    seen = Tags(thing._repr_html_())
    assert set(seen.tags) <= {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"}, "nothing else gets in"
    assert not seen.attributes and seen.tags.count("tr") > 1
    if name != "selection":
        assert "<script>alert(1)</script>" in seen.text, "shown as text"
    if name in ("pool", "features", "selection"):
        size = len(thing)
        assert f"of {size} rows" in seen.text and seen.tags.count("tr") == 6 and f"and {size - 5} more" in seen.text


def test_an_empty_thing_is_shown():
    none = edjax.select(features(), "random", 0)
    assert "Selection of 0 rows" in none._repr_html_() and "<table>" not in none._repr_html_()
    assert "<table>" not in RunResults()._repr_html_()


def test_long_cells_are_cut():
    assert len(notebook.cell("x" * 500)) == 120 and notebook.cell(np.float32(0.1)) == "0.1"
    assert notebook.cell(np.int64(123456)) == "123456" and notebook.cell(np.str_("a")) == "a"


# pandas


def test_features_and_selections_as_pandas():
    pandas = pytest.importorskip("pandas")
    found, chosen = features(), things()["selection"]
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame) == [
        "id",
        "mean_nll",
        "n_prompt_tokens",
        "generated",
        "shape",
    ]
    assert frame["mean_nll"].to_numpy().tolist() == found.scores["mean_nll"].tolist()
    with_x = found.to_pandas(embeddings=True)
    assert np.array_equal(np.stack(with_x["embedding"]), found.embeddings)
    own = {"id": np.arange(len(found)), "id_": np.ones(len(found))}
    named = dataclasses.replace(found, facts=own, arrays={"embedding": found.embeddings + 1})
    frame = named.to_pandas(embeddings=True)
    assert list(frame) == ["id", "mean_nll", "id__", "id_", "embedding_", "embedding"]
    assert frame["id"].tolist() == list(found.ids) and frame["id__"].tolist() == own["id"].tolist()
    assert np.array_equal(np.stack(frame["embedding"]), found.embeddings)
    assert "embedding" in named.to_pandas() and "embedding_" not in named.to_pandas()
    picks = chosen.to_pandas()
    assert list(picks["id"]) == list(chosen.ids) and picks["row"].tolist() == chosen.indices.tolist()
    assert picks["gain"].to_numpy().tolist() == chosen.gains.tolist()
    assert edjax.select(found, "random", 3).to_pandas()["gain"].isna().all()


def test_streamed_features_are_shown_and_read(tmp_path):
    pytest.importorskip("pandas")
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    found = edjax.read_features(tmp_path / "x.npy", ids=[f"r{i}" for i in range(30)], memory=100, scratch=tmp_path)
    assert isinstance(found.embeddings, Stream) and "embeddings of length 4" in found._repr_html_()
    assert np.array_equal(np.stack(found.to_pandas(embeddings=True)["embedding"]), x)


def test_without_pandas_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EnvError, match="pip install pandas"):
        features().to_pandas()


def test_pandas_is_imported_when_it_is_asked_for():
    code = "import sys, edjax; edjax.Features, edjax.Selection, edjax.Pool; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Pictures


@pytest.mark.parametrize("plot", [lambda: things()["selection"].plot(), lambda: results().plot()])
def test_a_picture_stands_alone(plot):
    drawn = plot()
    root = ET.fromstring(drawn._repr_svg_())
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.find("{*}style") is not None
    used = {c for e in root.iter() for c in e.get("class", "").split()} - {"wide", "line"}
    styled = set(re.findall(r"\.([a-z][\w-]*)", root.find("{*}style").text))
    assert used and {"grid", "mark"} <= used & styled, "the styles came along"
    assert "display: none" not in drawn.svg and "http" not in drawn.svg.replace("http://www.w3.org/2000/svg", "")
    seen = Tags(drawn._repr_html_())
    assert seen.tags == ["img"]
    data = dict(seen.attributes)["src"].removeprefix("data:image/svg+xml;base64,")
    assert base64.b64decode(data).decode() == drawn.svg


def test_no_picture_is_said():
    with pytest.raises(UsageError, match="these 3 picks of random have no gains to draw"):
        edjax.select(features(), "random", 3).plot()
    with pytest.raises(DataError, match="have no curve"):
        results(curves={}).plot()


# Progress


class Screen:
    """IPython as far as a bar needs it."""

    def __init__(self, kernel):
        self.shown = []
        self.module = types.ModuleType("IPython")
        self.module.get_ipython = lambda: types.SimpleNamespace(kernel=kernel)
        self.display = types.ModuleType("IPython.display")
        self.display.display = self.show

    def show(self, thing, display_id):
        self.shown.append(thing)
        return types.SimpleNamespace(update=self.shown.append)

    def install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "IPython", self.module)
        monkeypatch.setitem(sys.modules, "IPython.display", self.display)
        return self


def test_a_bar_in_a_cell(monkeypatch, capsys):
    screen = Screen(kernel=object()).install(monkeypatch)
    with progress.progress("<scoring>", 4, "rows") as advance:
        for _ in range(4):
            advance(note="loss 1.2")
    assert [(d.done, d.total) for d in (screen.shown[0], screen.shown[-1])] == [(0, 4), (4, 4)]
    assert len(screen.shown) < 5, "not a message a step"
    last = screen.shown[-1]._repr_html_()
    assert 'value="4" max="4"' in last and "&lt;scoring&gt;: 4/4 rows" in last and "loss 1.2" in repr(screen.shown[-1])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("show", [True, False])
def test_no_cell_no_bar(monkeypatch, show):
    screen = Screen(kernel=None if show else object()).install(monkeypatch)
    with progress.progress("scoring", 4, "rows", show=show) as advance:
        advance(4)
    assert not screen.shown, "IPython in a terminal, and a caller who wants none"
