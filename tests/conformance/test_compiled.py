"""Operators x samples x native targets: compiled code against the NumPy target in float64."""

from __future__ import annotations

import pytest
from compiled import Case, cases, graph_of, mismatches, refusal, run, runnable_targets

from diptych.ops import OPS, Contraction
from diptych.targets import host

# Samples without a native kernel yet: operator -> sample numbers. The test fails when one starts to work, so that
# this list only shrinks.
NOT_YET: dict[str, set[int]] = {
}

CONTRACTIONS = [n for n, op in OPS.items() if issubclass(op, Contraction)]


def native(name: str, weights: bool, target: str) -> list[Case]:
    machine = host.find(target)
    return [c for c in cases(name, weights) if refusal(c, machine) is None]


@pytest.fixture(params=runnable_targets())
def target(request: pytest.FixtureRequest) -> str:
    """Each native target that this machine runs."""
    name: str = request.param
    return name


@pytest.mark.parametrize("name", ["x86-64-v4", "x86-64-v3", "aarch64"])
def test_target_is_run_here(name: str) -> None:
    if name not in runnable_targets():
        pytest.skip(f"this machine cannot run {name} code; it is compiled and inspected in test_compile_only.py")


@pytest.mark.parametrize("name", OPS)
def test_operator(name: str, target: str) -> None:
    some = native(name, False, target)
    if not some:
        pytest.skip("no sample of it has a native kernel yet (see NOT_YET)")
    graph, given = graph_of(some)
    assert mismatches(graph, given, run(graph, given, host.find(target))) == []


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_contraction_with_constant_weights_on_two_threads(name: str, target: str) -> None:
    graph, given = graph_of(native(name, True, target))
    assert mismatches(graph, given, run(graph, given, host.find(target), threads=2)) == []


@pytest.mark.parametrize("name", OPS)
def test_what_has_no_kernel_is_listed(name: str) -> None:
    machine = host.find("x86-64-v3")
    refused = {i: r for i, c in enumerate(cases(name, False)) if (r := refusal(c, machine)) is not None}
    assert set(refused) == NOT_YET.get(name, set()), refused
    assert all(name in r and "target='numpy'" in r for r in refused.values())  # what, and what to do
