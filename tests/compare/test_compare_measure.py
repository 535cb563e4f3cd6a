"""A whole comparison, with fake engines under the real orchestration, and with the real ones that are here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.compare import ENGINES, Engine, Settings, Subject, compare, demo
from diptych.compare import measure as module
from diptych.compare.engines import engine
from diptych.errors import InputError

QUICK = {"threads": 1, "rounds": 3, "turn_s": 0.01, "quick": True}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Engine]:
    """Engines that all are the fake one, and a referee that says y = 2 x."""
    made = {
        name: Engine(name, name.title(), "fake_engine", "mxnet", "numpy", {"act": name})
        for name in ("right", "wrong", "refuse", "crash")
    }
    made["gone"] = Engine("gone", "Gone", "fake_engine", "mxnet", "no_such_package_at_all")
    made["other"] = Engine("other", "Other", "fake_engine", "torch", "numpy")
    monkeypatch.setattr(module, "ENGINES", made)
    monkeypatch.setattr(module, "BASES", ("right",))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)

    def prepare(run: Any, forms: set[str]) -> Any:
        return module._Prepared({}, [2.0 * x.astype(np.float64)], None, "twice the input")

    monkeypatch.setattr(module._Run, "prepare", prepare)
    return made


def subject() -> Subject:
    return Subject("twice", {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, symbol="s", params="p")


def test_every_engine_ends_in_the_state_it_earned(fakes: dict[str, Engine]) -> None:
    told: list[str] = []
    report = compare(subject(), Settings(**QUICK), told.append)
    rows = {r.engine: r for r in report.rows}
    assert {k: r.state for k, r in rows.items()} == {
        "right": "measured", "wrong": "measured", "refuse": "failed", "crash": "failed", "gone": "absent", "other": "unfit",
    }  # fmt: skip
    assert rows["right"].passed and rows["right"].counts and len(rows["right"].rounds) == 3
    assert not rows["wrong"].passed and not rows["wrong"].counts
    assert rows["right"].variant == "fast"
    assert "diptych engines install" in rows["gone"].remedy
    assert report.base == "right" and rows["right"].ratio is not None and rows["right"].ratio.value == 1
    assert any("round 3 of 3" in line for line in told)
    text = report.as_text()
    assert "WRONG" in text and "struck" in text and "not for me" in text and "last words" in text
    assert all("Wrong" not in line for line in report.verdicts())
    assert json.loads(json.dumps(report.as_json()))["rows"][0]["engine"] == "right"


def test_two_starts_unless_quick(fakes: dict[str, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENGINES", {"right": fakes["right"]})
    (row,) = compare(subject(), Settings(**{**QUICK, "quick": False})).rows
    assert row.cold is not None and row.warm is not None and row.start is row.warm


def test_without_a_referee_the_source_framework_is_the_yardstick(
    fakes: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module._Run, "prepare", lambda run, forms: module._Prepared({}, None, None, "none here"))
    chosen = {"wrong": fakes["wrong"], "mxnet": replace(fakes["right"], name="mxnet", title="MXNet")}
    monkeypatch.setattr(module, "ENGINES", chosen)
    report = compare(subject(), Settings(**QUICK))
    rows = {r.engine: r for r in report.rows}
    assert rows["mxnet"].passed and not rows["wrong"].passed
    assert report.referee.startswith("the answer of mxnet") and "none here" in report.referee


def test_bad_questions_are_refused() -> None:
    with pytest.raises(InputError, match="no engine is named 'tensorflow'"):
        engine("tensorflow")
    with pytest.raises(InputError, match="name a PyTorch model"):
        compare(Subject("nothing", {}))
    with pytest.raises(InputError, match="at least one round"):
        compare(demo(), Settings(rounds=0))


def here(*names: str) -> tuple[str, ...]:
    found = tuple(n for n in names if ENGINES[n].state().present)
    if not found:
        pytest.skip(f"none of the engines {', '.join(names)} is installed")
    return found


def test_demo_has_the_same_accuracy_on_every_engine_that_is_here() -> None:
    pytest.importorskip("torch", reason="the referee of the demonstration is its PyTorch twin in float64")
    engines = here("diptych", "torch", "onnxruntime", "openvino", "mxnet")
    report = compare(demo(40), Settings(engines=engines, **{**QUICK, "rounds": 1}))
    assert {r.engine: (r.state, r.reason) for r in report.rows} == dict.fromkeys(engines, ("measured", ""))
    for row in report.rows:
        assert row.judgement is not None and row.passed, (row.engine, row.judgement)
        assert row.judgement.top1 == 1.0, row.engine
        assert row.judgement.accuracy == 357 / 360, row.engine
