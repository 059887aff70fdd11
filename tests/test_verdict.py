"""What can be asked of a verdict."""

from __future__ import annotations

import pytest

from unstuck.verdict import Finding, Verdict

SYMPTOM = Finding("non-finite", "a", "error", 0.9, "a symptom")
ERROR, WARNING, NOTE = (
    Finding("undertrained", s, s, 0.9, s, explains=(SYMPTOM,)) for s in ("error", "warning", "note")
)


def test_warnings_and_errors_are_loud_in_their_order():
    assert Verdict("sick", (WARNING, ERROR, NOTE)).loud == (WARNING, ERROR)


@pytest.mark.parametrize("findings", [(), (NOTE,), (NOTE, NOTE)])
def test_notes_are_not_loud_nor_is_what_they_explain(findings):
    assert Verdict("healthy", findings).loud == ()


@pytest.mark.parametrize(("finding", "reached"), [(ERROR, "error"), (WARNING, "error"), (NOTE, "error")])
def test_a_severity_is_reached_by_a_symptom_too(finding, reached):
    assert Verdict("sick", (finding,)).reaches(reached)


def test_a_notebook_shows_the_findings_with_what_they_explain():
    shown = Verdict("sick", (Finding("undertrained", "a", "error", 0.9, "x < y", explains=(SYMPTOM,)),))._repr_html_()
    assert "<b>SICK</b>" in shown
    assert "<li><code>undertrained</code> (error, 0.90): x &lt; y</li><li><code>non-finite</code>" in shown
    assert "too <few>" not in Verdict("unknown", why_unknown="too <few> steps")._repr_html_()
