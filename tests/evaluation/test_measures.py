"""The measures against trec_eval's own binding, and what is counted how."""

from __future__ import annotations

import math

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.evaluation.measures import DEFAULT_MEASURES, evaluate
from cmbert_retrieval.types import Qrels, Run

IDS = st.sampled_from([f"d{number}" for number in range(30)] + ["D3", "ä", "𝄞"])
# Few distinct values, so that many are equal; two that are equal in single precision alone.
SCORES = st.sampled_from([0.0, 0.5, 1.0, 1.0 + 1e-9, 2.0, -1.0, 3.25])
QRELS = st.dictionaries(
    st.sampled_from("abcdef"), st.dictionaries(IDS, st.integers(-1, 3), min_size=1, max_size=8), min_size=1
)
RUNS = st.dictionaries(st.sampled_from("abcdefgh"), st.dictionaries(IDS, SCORES, max_size=25))


def by_trec_eval(qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """Return trec_eval's values, 0 for a judged query that it has nothing for, as its option -c counts."""
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100", "P.10", "recip_rank"})
    found = evaluator.evaluate({query: scores for query, scores in run.items() if scores})
    values = {}
    for query in qrels:
        one = found.get(query, {})
        first = one.get("recip_rank", 0.0)
        values[query] = {
            "nDCG@10": one.get("ndcg_cut_10", 0.0),
            "R@100": one.get("recall_100", 0.0),
            "MRR@10": first if first >= 0.1 - 1e-12 else 0.0,
            "P@10": one.get("P_10", 0.0),
        }
    return values


@settings(max_examples=300, deadline=None)
@given(qrels=QRELS, run=RUNS)
def test_values_are_those_of_trec_eval_with_ties_and_missing_queries(qrels: Qrels, run: Run) -> None:
    ours = evaluate(qrels, run)
    theirs = by_trec_eval(qrels, run)
    assert list(ours.per_query) == list(qrels)
    for query, values in theirs.items():
        for measure, value in values.items():
            assert ours.per_query[query][measure] == pytest.approx(value, abs=1e-9), (query, measure)
    for measure in ("nDCG@10", "R@100", "MRR@10", "P@10"):
        mean = sum(values[measure] for values in theirs.values()) / len(qrels)
        assert ours.mean[measure] == pytest.approx(mean, abs=1e-9)


def test_ndcg_of_a_small_case_by_hand() -> None:
    found = evaluate({"q": {"a": 2, "b": 1}}, {"q": {"x": 3.0, "b": 2.0, "a": 1.0}}, ["nDCG@10"])
    gained = 1 / math.log2(3) + 2 / math.log2(4)
    assert found.mean["nDCG@10"] == pytest.approx(gained / (2 + 1 / math.log2(3)))


def test_a_judged_query_without_results_halves_the_mean_of_two() -> None:
    qrels = {"1": {"a": 1}, "2": {"b": 1}}
    for run in ({"1": {"a": 1.0}}, {"1": {"a": 1.0}, "2": {}}):
        found = evaluate(qrels, run)
        assert found.mean["nDCG@10"] == 0.5
        assert found.without_results == ["2"]


def test_judged_at_10_is_the_share_of_judged_documents_among_the_first_ten() -> None:
    run = {"q": {f"d{number}": 20.0 - number for number in range(20)}}
    qrels = {"q": {"d0": 0, "d3": 1, "d9": 1, "d10": 1}}
    assert evaluate(qrels, run, ["Judged@10"]).mean["Judged@10"] == 0.3


def test_all_measures_break_ties_alike() -> None:
    # trec_eval puts the greater id first; 'b' is relevant and so stands first.
    found = evaluate({"q": {"b": 1}}, {"q": {"a": 1.0, "b": 1.0}}, [*DEFAULT_MEASURES, "Judged@1", "P@1"])
    assert found.mean["MRR@10"] == found.mean["Judged@1"] == found.mean["P@1"] == 1.0
    assert found.tied == ["q"]


def test_what_a_reader_of_the_figures_has_to_know_is_said() -> None:
    qrels = {"1": {"a": 1}, "2": {"b": 1}, "3": {"c": 0}, "4": {"d": 1}}
    found = evaluate(qrels, {"1": {"a": 1.0, "b": 1.0}, "3": {"c": 1.0}, "9": {"a": 1.0}})
    assert found.remarks() == [
        "2 queries without results, counted as 0 (2, 4)",
        "1 query without anything relevant among the judgements, 0 for every system (3)",
        "1 query in the run that nobody judged, left out (9)",
        "1 query with equal scores, ordered as trec_eval orders them (1)",
    ]


@pytest.mark.parametrize("name", ["nDGC@10", "", "os.system('x')", "P@", "nDCG@-1", "P(rel='x')@10"])
def test_an_unknown_measure_is_an_error_that_says_how_they_are_written(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown measure .*expected names like nDCG@10"):
        evaluate({"q": {"a": 1}}, {"q": {"a": 1.0}}, [name])


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused(score: float) -> None:
    with pytest.raises(ConfigError, match="query 'q': a score is not finite"):
        evaluate({"q": {"a": 1}}, {"q": {"a": score}})


def test_judgements_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="no judgements"):
        evaluate({}, {"q": {"a": 1.0}})
