"""Expected scores as a Markdown table: what the README shows, misses included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.evaluation.expected import Expected, ExpectedScore

BEGIN = "<!-- results: begin -->"
END = "<!-- results: end -->"


def table(suites: Iterable[Expected]) -> str:
    """Return a Markdown table with a line for each set and a column for each system, best in bold.

    A score that misses its mark says so. Suites with other systems get a table of their own; one whose pairs
    of set and system are all in another suite is left out.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Expected]] = {}
    given = list(suites)
    pairs = [{(score.set, score.system) for score in suite.scores} for suite in given]
    for suite, own in zip(given, pairs, strict=True):
        if any(own < other for other in pairs):
            continue
        systems = tuple(dict.fromkeys(score.system for score in suite.scores))
        groups.setdefault((suite.measure, systems), []).append(suite)
    return "\n\n".join(
        _one_table(measure, systems, members) for (measure, systems), members in groups.items()
    )


def _one_table(measure: str, systems: Sequence[str], suites: Sequence[Expected]) -> str:
    head = [f"{measure}", "queries", *systems, "encoder trained on this set"]
    lines = [_row(head), _row(["---", "--:", *["--:"] * len(systems), "---"])]
    for suite in suites:
        by_set: dict[str, dict[str, ExpectedScore]] = {}
        for score in suite.scores:
            by_set.setdefault(score.set, {})[score.system] = score
        for name, scores in by_set.items():
            best = max(score.score for score in scores.values())
            cells = [_cell(scores.get(system), best) for system in systems]
            queries = next(iter(scores.values())).queries
            lines.append(_row([name, f"{queries:,}", *cells, _trained(scores.values())]))
    return "\n".join(lines)


def _cell(score: ExpectedScore | None, best: float) -> str:
    if score is None:
        return ""
    text = f"{score.score:.3f}"
    if score.score == best:
        text = f"**{text}**"
    if score.mark is not None and score.score < score.mark:
        text += f" (misses {score.mark:.3f})"
    return text


def _trained(scores: Iterable[ExpectedScore]) -> str:
    said = {score.trained_on_set for score in scores}
    return next(word for word in ("yes", "not stated", "no") if word in said)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def with_table(page: str, suites: Iterable[Expected]) -> str:
    """Return a page with the table put between its two marks.

    Raises:
        ConfigError: the page does not have them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"the page has no lines '{BEGIN}' and '{END}' for the table to stand between")
    return f"{before}{BEGIN}\n{table(suites)}\n{END}{after}"


def update_page(path: Path, suites: Iterable[Expected]) -> bool:
    """Write the table into a page; return whether that changed it."""
    page = path.read_text(encoding="utf-8")
    changed = with_table(page, suites)
    if changed != page:
        path.write_text(changed, encoding="utf-8")
    return changed != page
