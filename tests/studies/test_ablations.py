"""Variants trained and judged beside the whole system: what is shared is linked, what is judged is kept."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from pr2_jax.cli import entry
from pr2_jax.config import ablation_config, loader
from pr2_jax.config.ablation_config import WHOLE, Ablation
from pr2_jax.errors import BadConfig
from pr2_jax.metrics import per_session
from pr2_jax.studies import ablations

FILE = """
ABLATIONS = {
    "qin": {"no feed views": {"qin.feed_share": 0.0}},
    "channels": {"no pdr": {"retrieval.channels": "bm25+dr+qrcf"}},
}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studied(finished, tmp_path_factory):
    """A work directory with both variants judged, one seed."""
    place = tmp_path_factory.mktemp("ablations")
    shutil.copytree(finished, place / "w")
    (place / "file.py").write_text(FILE)
    assert entry.main(["evaluate", "--workdir", str(place / "w"), "--ablations", str(place / "file.py")]) == 0
    return place


def _values(studied, variant: str, day: str = "test"):
    return per_session.load(studied / "w" / "ablations" / "seed_0" / variant / "judged" / f"{day}.npz")


def test_the_whole_system_is_what_evaluate_found(studied, finished):
    """The same stages, linked and not trained again, judged by the same path."""
    whole, evaluated = _values(studied, "whole_system"), per_session.load(finished / "eval" / "sessions.npz")
    for name in ("retrieval.pr2", "pipeline.pr2", "slate.qin"):
        for metric, value_N in evaluated[name].metrics.items():
            np.testing.assert_array_equal(whole[name][metric], value_N)
    directory = studied / "w" / "ablations" / "seed_0" / "whole_system"
    assert (directory / "qin" / "pr2.json").samefile(studied / "w" / "qin" / "pr2.json")


def test_a_variant_differs_where_its_part_matters_and_only_there(studied):
    names = ("whole_system", "qin_no_feed_views", "channels_no_pdr")
    whole, less, fewer = (_values(studied, name) for name in names)
    assert set(fewer) == {name for name in whole if name.startswith("retrieval.")}
    for name in ("retrieval.pr2", "retrieval.pdr", "retrieval.qrcf"):
        np.testing.assert_array_equal(less[name]["recall@100"], whole[name]["recall@100"])
    assert not np.array_equal(less["slate.qin"]["auc"], whole["slate.qin"]["auc"])
    assert not np.array_equal(fewer["retrieval.pr2"]["mrr"], whole["retrieval.pr2"]["mrr"])
    np.testing.assert_array_equal(fewer["retrieval.pdr"]["mrr"], whole["retrieval.pdr"]["mrr"])  # still judged alone


def test_what_was_trained_for_a_variant_is_dropped(studied):
    left = {path.name for path in (studied / "w" / "ablations" / "seed_0" / "qin_no_feed_views").iterdir()}
    assert left == {"judged"}
    shared = studied / "w" / "ablations" / "seed_0" / "shared"
    assert [path.name.partition("_")[0] for path in sorted(shared.iterdir())] == ["base", "slates"]


def test_tables_are_made_from_the_kept_values(studied):
    report = json.loads((studied / "w" / "ablations" / "ablations.json").read_text())
    whole, less = _values(studied, "whole_system"), _values(studied, "qin_no_feed_views")
    found = report["test"]["tables"]["qin"]["no feed views"]["AUC"]["mean"]
    assert found == pytest.approx(np.nanmean(less["slate.qin"]["auc"] - whole["slate.qin"]["auc"]))
    assert report["test"]["tables"]["qin"]["whole system"]["AUC"]["mean"] == pytest.approx(
        np.nanmean(whole["slate.qin"]["auc"])
    )
    assert report["validation"]["tables"].keys() == {"qin", "channels"}
    text = (studied / "w" / "ablations" / "table_test.txt").read_text()
    assert "no feed views" in text
    assert "only this one finds" in text


def test_again_judges_only_what_changed(studied, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(ablations, "_make_stages", lambda place, *rest: made.append(place.name) or 1 / 0)
    command = ["evaluate", "--workdir", str(studied / "w"), "--ablations"]
    assert entry.main([*command, str(studied / "file.py")]) == 0
    assert capsys.readouterr().out == (studied / "w" / "ablations" / "table_test.txt").read_text()
    (studied / "other.py").write_text(FILE.replace('"bm25+dr+qrcf"', '"bm25+qrcf"'))
    with pytest.raises(ZeroDivisionError):
        entry.main([*command, str(studied / "other.py")])
    assert made == ["channels_no_pdr"]


def test_channels_found_alone(studied):
    """What a channel alone has in its best 100 is at most what it finds, and sums to no more than all clicks."""
    whole = _values(studied, "whole_system")
    unique = [whole[f"retrieval.{name}"]["unique@100"] for name in ("bm25", "dr", "qrcf", "pdr")]
    for name, alone_N in zip(("bm25", "dr", "qrcf", "pdr"), unique, strict=True):
        assert (alone_N <= whole[f"retrieval.{name}"]["recall@100"] + 1e-9).all()
    assert (np.sum(unique, axis=0) <= 1 + 1e-9).all()


def test_seeds_reach_every_model(micro_config):
    first, second = (ablation_config.seeded(micro_config, number) for number in (0, 2))
    assert first == micro_config
    for model in ablation_config.MODELS:
        assert getattr(second, model).optim.seed == getattr(micro_config, model).optim.seed + 2


def test_the_variants_that_ship_all_fit(repository, micro_config):
    found = ablation_config.load(
        repository / "configs" / "ablations.py", loader.load(str(repository / "configs" / "kuaisar.py"))
    )
    assert {one.group for one in found} == {"qin", "preference", "pdr", "qrcf", "channels"}
    assert WHOLE.ranked
    assert all(one.ranked == (one.group in ("qin", "preference")) for one in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ABLATIONS = {'qin': {'odd': {'qin.reeltime': 0}}}", "did you mean 'realtime'"),
        ("ABLATIONS = {'qin': {'odd': {'qin.realtime': 'no'}}}", "config.qin.realtime = 'no': expected int"),
        (
            "ABLATIONS = {'qin': {'odd': {'qin.heads': 5}}}",
            "ablation 'qin: odd': config.qin: heads = 5 does not divide",
        ),
        ("ABLATIONS = {'qin': {'odd': {}}}", "changes nothing"),
        (
            "ABLATIONS = {'qin': {'a b': {'qin.realtime': 0}, 'a-b': {'qin.realtime': 1}}}",
            "'qin: a-b' and 'qin: a b' have the same letters",
        ),
        ("ABLATIONS = {'qin': {'%s': {'qin.realtime': 0}}}" % ("x" * 300), "a name of 304 letters, expected 100"),
        ("ABLATIONS = {'qin': {'odd': {1: 2}}}", "changes 1, expected a field of data, content"),
        (
            "ABLATIONS = {'qin': {'odd': {'evaluation.bootstrap': 2}}}",
            "changes 'evaluation.bootstrap', expected a field",
        ),
        ("ABLATIONS = {}", "no variant that differs"),
        ("ABLATIONS = {'qin': {'same': {'qin.realtime': 8}}}", "no variant that differs"),
        ("ABLATIONS = ['qin']", "group to name to changes"),
        ("other = 1", "defines no ABLATIONS"),
        ("ABLATIONS = 1 / 0", "file.py:1: ZeroDivisionError"),
    ],
)
def test_a_wrong_file_is_one_line(text, said, tmp_path, micro_config):
    (tmp_path / "file.py").write_text(text)
    with pytest.raises(BadConfig, match=said.replace("(", r"\(")):
        ablation_config.load(tmp_path / "file.py", micro_config)


def test_what_the_whole_system_is_already_is_left_out_and_said_so(tmp_path, micro_config, capsys):
    (tmp_path / "file.py").write_text(
        "ABLATIONS = {'qin': {'same': {'qin.realtime': 8}, 'none': {'qin.realtime': 0}},"
        " 'x': {'y': {'scores.floor_tolerance': 0.5}}}"
    )
    found = ablation_config.load(tmp_path / "file.py", micro_config)
    assert [one.name for one in found] == ["none", "y"]
    assert all(one.ranked for one in found)  # how scores are fused shows behind a ranker only
    assert "ablation 'qin: same' is left out" in "".join(capsys.readouterr())


def test_directories_are_plain_names():
    assert Ablation("qin", "no GSU (the latest views)").directory == "qin_no_gsu_the_latest_views"
