"""Files, variants, overrides and JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import runpy
import shutil
from pathlib import Path

import pytest

from pr2_jax.config import Config, OptimConfig, PdrConfig, loader, preset_files
from pr2_jax.errors import BadConfig


def test_every_config_and_every_variant_builds(repository):
    files = sorted(set((repository / "configs").glob("*.py")) - {repository / "configs" / "ablations.py"})
    assert [path.stem for path in files] == ["kuaisar", "quickstart"]
    digests = set()
    for path in files:
        assert re.match(rf'"""[^\n]*pr2 run --config {path.stem} --workdir ', path.read_text()), (
            "opens with its command"
        )
        assert re.search(r"^measured: .*\d", path.read_text(), re.MULTILINE), "machine, time, result"
        variants = runpy.run_path(str(path))["VARIANTS"]
        assert "tiny" in variants
        for variant in ("", *variants):
            config = loader.load(f"{path}:{variant}" if variant else str(path))
            assert loader.from_dict(json.loads(json.dumps(loader.to_dict(config)))) == config
            digests.add(loader.digest(config))
    assert len(digests) == 4


def test_tiny_keeps_what_the_config_is_about(repository):
    tiny = loader.load(f"{repository}/configs/quickstart.py:tiny")
    assert tiny.data.source == "short_video_world"
    assert tiny.pdr.optim.max_steps < Config().pdr.optim.max_steps
    assert not tiny.base.personal


def test_overrides_take_the_type_of_their_field(repository):
    config = loader.load(
        f"{repository}/configs/kuaisar.py",
        [
            "--config.pdr.width=32",
            "--config.pdr.optim.learning_rate=1e-3",
            "--config.pdr.optim.epochs=3",
            "--config.pdr.optim.max_steps=1_000",
            "--config.qin.personal=false",
            "--config.retrieval.qrcf.similarity=cosine",
            "--config.name=a=b",
        ],
    )
    assert config.pdr == PdrConfig(
        width=32, optim=dataclasses.replace(PdrConfig().optim, learning_rate=1e-3, epochs=3.0, max_steps=1_000)
    )
    assert config.qin.personal is False
    assert config.retrieval.qrcf.similarity == "cosine"
    assert config.name == "a=b"


def test_overrides_that_belong_together_apply_together():
    config = loader.override(Config(), ["--config.pdr.heads=5", "--config.pdr.width=40"])
    assert (config.pdr.heads, config.pdr.width) == (5, 40)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.pdr.widht=3", "config.pdr has no field 'widht', did you mean 'width'? It has width, hidden, heads"),
        ("--config.pdrr.width=3", "config has no field 'pdrr', did you mean 'pdr'? It has name, mesh, data, world"),
        ("--config.pdr.zzz=3", "config.pdr has no field 'zzz'. It has width"),
        ("--config.=3", "config has no field ''"),
        ("--config.pdr=3", "config.pdr is a section: set one of width, hidden"),
        ("--config.pdr.width.x=3", "config.pdr.width is a value, not a section"),
        ("--config.pdr.width", "'--config.pdr.width' is not an override: write --config.SECTION.FIELD=VALUE"),
        ("--config.pdr.width=wide", "config.pdr.width = 'wide': expected int"),
        ("--config.pdr.width=3.5", "config.pdr.width = '3.5': expected int"),
        ("--config.pdr.dropout=high", "config.pdr.dropout = 'high': expected float"),
        ("--config.pdr.dropout=nan", "config.pdr: dropout = nan, expected a finite number"),
        ("--config.qin.personal=maybe", "config.qin.personal = 'maybe': expected true or false"),
        ("--config.qin.heads=5", "config.qin: heads = 5 does not divide width = 32; take one of 1, 2, 4, 8, 16, 32"),
    ],
)
def test_bad_override_is_named(override, message):
    with pytest.raises(BadConfig) as error:
        loader.override(Config(), [override])
    assert message in str(error.value)


HEAD = "from pr2_jax.config import Config, PdrConfig\nVARIANTS = ('tiny', 'wide')\n"


@pytest.mark.parametrize(
    ("text", "variant", "message"),
    [
        (HEAD + "def get_config(variant=''): return Config()", "tyni", "no variant 'tyni'; it has tiny, wide"),
        (HEAD + "def get_config(variant=''):\n  return Config(pdr=PdrConfig(widht=3))", "", "x.py:4: PdrConfig has no"),
        (HEAD + "def get_config(variant=''):\n  return Config(pdr=PdrConfig(heads=7))", "", "x.py: PdrConfig: heads"),
        (HEAD + "def get_config(variant=''): return {'pdr': 3}", "", "x.py: get_config returned dict, expected pr2"),
        (HEAD + "def get_config(variant=''):\n  return 1 / 0", "", "x.py:4: ZeroDivisionError: division by zero"),
        (HEAD + "def get_config(variant='')\n  return 1", "", "x.py:3: SyntaxError"),
        ("VARIANTS = ()", "", "x.py: no config: a config file defines get_config(variant) and VARIANTS"),
    ],
)
def test_bad_config_file_is_one_line_with_its_place(tmp_path, text, variant, message):
    path = tmp_path / "x.py"
    path.write_text(text)
    with pytest.raises(BadConfig) as error:
        loader.load(f"{path}:{variant}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_misspelt_keyword_of_a_file_suggests_the_nearest(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(HEAD + "def get_config(variant=''): return Config(pdr=PdrConfig(widht=3))")
    with pytest.raises(BadConfig, match="did you mean 'width'"):
        loader.load(str(path))


def test_missing_file_lists_the_presets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("kuaishou", "configs/kuaishou.py", "configs/kuaisar", "kuaisar.py"):
        meant = "; " if name == "configs/kuaishou.py" else ", did you mean 'kuaisar'? "
        message = f"there is no preset and no config file {name}{meant}Presets: kuaisar, quickstart. Files: FILE.py"
        with pytest.raises(BadConfig, match=f"^{re.escape(message)}$"):
            loader.load(name)


def test_a_preset_is_found_from_anywhere_and_is_the_file_that_people_copy(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in preset_files.names():
        for variant in ("", ":tiny"):
            ours = loader.load(f"{name}{variant}")
            assert ours == loader.load(f"{repository}/configs/{name}.py{variant}")
    Path("quickstart").mkdir()
    assert loader.load("quickstart").name == "quickstart"
    shutil.copy(preset_files.path_of("kuaisar"), "quickstart.py")
    assert loader.load("quickstart.py").name == "kuaisar"


OLD = {"pdrs": "pdr", "pdr.breadth": "pdr.width", "evaluation.depth": "retrieval.depth"}


@pytest.fixture
def renamed(monkeypatch):
    """As if a section and two fields had other names once."""
    for old, new in OLD.items():
        monkeypatch.setitem(loader.ALIASES, old, new)
    loader._say_renamed.cache_clear()


def test_old_names_are_taken_and_the_present_one_is_said_once(renamed, capsys):
    given = ["--config.pdrs.heads=2", "--config.pdrs.breadth=32", "--config.evaluation.depth=500"]
    config = loader.override(Config(), [*given, "--config.pdrs.optim.epochs=2"])
    assert (config.pdr.heads, config.pdr.width, config.retrieval.depth, config.pdr.optim.epochs) == (2, 32, 500, 2.0)
    assert capsys.readouterr().err.splitlines() == [
        "pr2       config.pdrs is called config.pdr now",
        "pr2       config.pdr.breadth is called config.pdr.width now",
        "pr2       config.evaluation.depth is called config.retrieval.depth now",
    ]
    assert loader.replaced(Config(), {"pdrs.heads": 2}).pdr.heads == 2
    with pytest.raises(BadConfig, match=r"config\.pdr has no field 'widht', did you mean 'width'"):
        loader.override(Config(), ["--config.pdrs.widht=3"])
    with pytest.raises(BadConfig, match=r"config has no field 'pdrsx'"):
        loader.override(Config(), ["--config.pdrsx.width=3"])


def test_a_saved_config_with_old_names_is_read(renamed, tmp_path, capsys):
    data = loader.to_dict(Config())
    data["pdrs"] = data.pop("pdr")
    data["pdrs"]["breadth"] = data["pdrs"].pop("width") // 2
    data["evaluation"]["depth"] = data["retrieval"].pop("depth")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    assert loader.read(path) == loader.override(Config(), [f"--config.pdr.width={PdrConfig().width // 2}"])
    assert len(capsys.readouterr().err.splitlines()) == 3
    data["pdr"] = data["pdrs"]
    path.write_text(json.dumps(data))
    with pytest.raises(BadConfig, match="config has no field 'pdrs'"):
        loader.read(path)


def test_aliases_lead_from_what_there_was_to_what_there_is():
    data = loader.to_dict(Config())
    for old, new in loader.ALIASES.items():
        for path, known in ((loader._present(new), True), (old, False)):
            *sections, name = path.split(".")
            section = functools.reduce(loader._inside, sections, data)
            assert (isinstance(section, dict) and name in section) is known, path


def test_saved_config_reads_back_and_takes_overrides(tmp_path):
    config = dataclasses.replace(Config(), pdr=PdrConfig(width=32))
    loader.save(config, tmp_path / "config.json")
    assert loader.read(tmp_path / "config.json") == config
    again = loader.load(str(tmp_path / "config.json"), ["--config.name=b"])
    assert again == dataclasses.replace(config, name="b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["pdr"].pop("width"), "config.pdr lacks width"),
        (lambda data: data["pdr"].update(breadth=3), "config.pdr has no field 'breadth'"),
        (lambda data: data.update(pdr=3), "config.pdr is 3, expected a section with width"),
        (lambda data: data["pdr"].update(width="64"), "config.pdr: width = '64', expected int"),
    ],
)
def test_saved_config_of_another_version_is_refused(tmp_path, change, message):
    data = loader.to_dict(Config())
    change(data)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    with pytest.raises(BadConfig) as error:
        loader.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_saved_config_that_is_not_json(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadConfig, match=r"config\.json is not JSON: "):
        loader.read(tmp_path / "config.json")


def test_digest_changes_with_values_only():
    assert loader.digest(OptimConfig(epochs=3)) == loader.digest(OptimConfig(epochs=3.0))
    assert loader.digest(OptimConfig(epochs=3)) != loader.digest(OptimConfig(epochs=3.5))
    assert loader.digest(OptimConfig(epochs=3)) != loader.digest(OptimConfig(epochs=3, seed=1))


@pytest.mark.parametrize("given", ["dr+bm25", "dr,bm25", '["dr", "bm25"]'])
def test_names_may_be_joined_or_a_list(given):
    config = loader.override(Config(), [f"--config.retrieval.channels={given}"])
    assert config.retrieval.channels == ("dr", "bm25")
    assert loader.from_dict(json.loads(json.dumps(loader.to_dict(config)))) == config
    assert loader.replaced(Config(), {"retrieval.channels": ["dr", "bm25"]}) == config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("dr+dr", "each once"),
        ("dr+tfidf", "'dr[+]tfidf', expected some of bm25"),
        ("", "each once"),
        ("[1", "not JSON"),
    ],
)
def test_names_that_mean_nothing_are_refused(given, said):
    with pytest.raises(BadConfig, match=said):
        loader.override(Config(), [f"--config.retrieval.channels={given}"])


def test_a_config_of_before_is_read(tmp_path):
    """Names joined in one text, and the number of candidates among evaluation's fields."""
    config = loader.replaced(Config(), {"search.candidates": 77, "qin.inputs": ["video", "preference"]})
    data = json.loads(json.dumps(loader.to_dict(config)))
    data["evaluation"]["pipeline_candidates"] = data["search"].pop("candidates")
    data["retrieval"]["channels"], data["qin"]["inputs"] = "bm25+dr+qrcf+pdr", "video+preference"
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert loader.read(tmp_path / "config.json") == config


def test_weights_of_heads_by_their_old_paths(tmp_path):
    """On the command line, in an ablation file and in a config that was saved before heads were data."""
    old = {"qin.long_play_weight": 0.7, "base.like_weight": 0.1, "pdr.click_weight": 2.0}
    config = loader.override(Config(), [f"--config.{path}={value}" for path, value in old.items()])
    assert config == loader.replaced(Config(), old)
    assert [head.weight for head in config.qin.prediction_heads] == [1.0, 0.7, 0.2]
    assert [head.weight for head in config.base.prediction_heads] == [1.0, 0.3, 0.1]
    assert [head.weight for head in config.pdr.feedback_heads] == [2.0, 0.5, 0.2]
    saved = loader.to_dict(config)
    for model, field in (("qin", "prediction_heads"), ("base", "prediction_heads"), ("pdr", "feedback_heads")):
        saved[model] |= {f"{head['name']}_weight": head["weight"] for head in saved[model].pop(field)}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert loader.read(tmp_path / "config.json") == config
    loader.save(config, tmp_path / "new.json")
    assert loader.read(tmp_path / "new.json") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prediction_heads.liek.weight=1", "config.qin.prediction_heads has no field 'liek', did you mean 'like'?"),
        ("prediction_heads.like.wait=1", "config.qin.prediction_heads.like has no field 'wait'"),
        ("prediction_heads.like=1", "config.qin.prediction_heads.like is a section: set one of name, label, weight"),
        ("prediction_heads=1", "config.qin.prediction_heads is a list: set a field of one of click, long_play, like"),
        ("prediction_heads.like.weight=much", "config.qin.prediction_heads.like.weight = 'much': expected float"),
        ("prediction_heads.like.label=comment", "label = 'comment', expected one of click, long_play, like, follow"),
    ],
)
def test_a_wrong_head_is_named(override, message):
    with pytest.raises(BadConfig) as error:
        loader.override(Config(), [f"--config.qin.{override}"])
    assert message in str(error.value)
