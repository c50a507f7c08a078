from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from tests.support.reports import built, section

pytestmark = pytest.mark.slow


def disturbed(run, *sentences):
    """The run, with warnings in its first trial and the others as they were."""
    rows = run.trials.to_dicts()
    rows[0]["warnings"] = [*rows[0]["warnings"], *sentences]
    return replace(run, trials=pl.DataFrame(rows, schema=run.trials.schema))


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        (
            "W232: the joules are those of the CPU (estimate), and not those of NVIDIA H100",
            "The GPU's energy is missing",
        ),
        ("W251: the process did not run for 63.0 s inside the window", "were suspended and have no joules (W251)"),
        (
            "W264: the load average was 9.0 on 2 CPUs, and other processes used 1.2 of them",
            "busy with other work in 1 of",
        ),
    ],
)
def test_what_disturbed_a_window_is_in_beware_and_in_the_table(small, sentence, words):
    usual, _, _ = built(small)
    assert not any(words in line for line in usual.headline.beware)
    report, html, markdown = built(disturbed(small, sentence))
    assert sum(words in line for line in report.headline.beware) == 1
    assert words.replace("'", "&#39;") in html or words in html
    assert words in markdown
    code = sentence[:4]
    rows = [row for table in section(report, "warnings").tables for row in table.rows if row[0].text == code]
    assert [row[1].text for row in rows] == ["1"]
    badges = [badge.value for badge in report.badges if badge.label == "not in the joules"]
    assert badges == (["THE GPU"] if code == "W232" else [])


def test_failures_and_unscored_images_are_counted_with_their_reasons(synthetic, small):
    run = small
    first = pl.col("cell_id") == "tiny-teacher-001"
    run = replace(
        run,
        trials=run.trials.with_columns(failure=pl.when(first).then(pl.lit("out of memory"))),
        scores=run.scores.with_columns(
            value=pl.when(first).then(None).otherwise(pl.col("value")),
            reason_unscored=pl.when(first).then(pl.lit("no image")),
        ),
    )
    report, html, _ = built(synthetic.summarised(run))
    tables = {t.caption: t for t in section(report, "warnings").tables}
    assert [c.text for c in tables["Trials that failed"].rows[0]] == ["tiny-teacher-001", "8", "out of memory"]
    unscored = tables["Images without a score"].rows
    assert {row[0].text for row in unscored} == set(run.metrics)
    assert {row[2].text for row in unscored} == {"no image"}
    assert "W203" in html
