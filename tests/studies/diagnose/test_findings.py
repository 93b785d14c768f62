"""Checks and verdicts: what is out of range is named, with a knob that exists."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from pr2_jax.config.schema import THRESHOLDS, Config
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.studies.diagnose.diagnose import checks
from pr2_jax.studies.diagnose.findings import LOOK, OK, UNKNOWN, Check, Diagnostic, Fault, judge, text

LOW, HIGH = Fault("too little", "qin.dropout", "lower it"), Fault("too much", "qin.dropout", "raise it")
CHECK = Check("qin.thing", "a thing, in units", low=1, high=2, below=LOW, above=HIGH)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_every_knob_is_a_field_and_every_check_has_a_name_of_its_own(threshold):
    every = checks(threshold)
    assert len({check.key for check in every}) == len(every) >= 10
    for check in every:
        for fault in (check.below, check.above):
            if fault:
                value = Config()
                for name in fault.knob.split("."):
                    assert name in {field.name for field in dataclasses.fields(value)}, fault.knob
                    value = getattr(value, name)
                assert not dataclasses.is_dataclass(value)
    knobs = {check.below.knob for check in every if check.key == "qrcf.coverage"}
    assert knobs == {"retrieval.qrcf." + {"quantile": "epsilon_quantile", "adaptive": "adaptive_quantile"}[threshold]}


@pytest.mark.parametrize(
    ("value", "verdict", "fault"),
    [
        (0.9, LOOK, LOW),
        (1.0, OK, None),
        (2.0, OK, None),
        (2.1, LOOK, HIGH),
        (math.inf, LOOK, HIGH),
        (math.nan, UNKNOWN, None),
        (Interval(0.9, 0.7, 1.0, 9), OK, None),  # touches the range: it may be chance
        (Interval(0.8, 0.6, 0.99, 9), LOOK, LOW),
        (Interval(2.5, 2.01, 3.0, 9), LOOK, HIGH),
        (Interval(2.5, 1.9, 3.0, 9), OK, None),
        (Interval(math.nan, math.nan, math.nan, 0), UNKNOWN, None),
    ],
)
def test_out_of_range_is_what_lies_there_with_its_whole_interval(value, verdict, fault):
    (found,) = judge([CHECK], {"qin.thing": Diagnostic(value)})
    assert (found.verdict, found.fault) == (verdict, fault)
    json.dumps(found.plain(), allow_nan=False)


def test_text_names_measure_range_meaning_and_knob_worst_first():
    fine = dataclasses.replace(CHECK, key="qin.fine")
    found = judge([fine, CHECK], {"qin.thing": Diagnostic(7.0, "as it were"), "qin.fine": Diagnostic(1.5)})
    shown = text(found, "Diagnosis.")
    assert shown.startswith("Diagnosis. 1 of 2 checks is out of range.\n\nlook    qin.thing")
    ill, well = shown.split("\nok ")
    for part in ("7.000", "normal 1 to 2", "a thing, in units", "as it were", "Too much.", "qin.dropout: raise it"):
        assert part in ill
    for part in ("qin.fine", "1.500", "normal 1 to 2", "knob qin.dropout"):
        assert part in well
    assert "interval" not in shown
    assert text(found[1:], "Diagnosis.").startswith("Diagnosis. None of 1 checks is out of range.")
    assert max(len(line) for line in shown.splitlines()) <= 120


def test_where_the_interval_alone_reaches_the_range_the_line_says_so():
    (found,) = judge([CHECK], {"qin.thing": Diagnostic(Interval(2.5, 1.9, 3.0, 9))})
    shown = text([found], "Diagnosis.")
    assert "2.500 ±0.550       normal 1 to 2; ok: the interval reaches the range\n" in shown
    assert "        Knob: qin.dropout.\n" in shown


def test_measures_and_checks_must_match_up():
    with pytest.raises(KeyError, match=r"qin\.other, qin\.thing"):
        judge([CHECK], {"qin.other": Diagnostic(1.0)})
    with pytest.raises(ValueError, match="every end of the range needs its fault"):
        Check("qin.thing", "a thing", low=1)
