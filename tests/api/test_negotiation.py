"""`Accept` chooses the form of an answer (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import pytest

from app.api.negotiation import choose
from app.nuclei.errors import NotAcceptable

OFFERS = ("application/geo+json", "application/json", "image/png", "text/csv")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/geo+json"),
        ("", "application/geo+json"),
        ("*/*", "application/geo+json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/geo+json"),
        ("image/*", "image/png"),
        ("application/*;q=0.5, text/csv", "text/csv"),
        ("application/json;q=0.9, image/png;q=0.91", "image/png"),
        ("APPLICATION/JSON", "application/json"),
        ("application/geo+json;q=0, */*", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("text/csv;q=1, image/png;q=1", "image/png"),
    ],
)
def test_the_most_wanted_form_is_chosen(accept, chosen):
    assert choose(accept, OFFERS) == chosen


@pytest.mark.parametrize("accept", ["application/dicom", "image/png;q=0", "text/csv;q=much", "*/*;q=0", "nonsense"])
def test_nothing_wanted_is_refused(accept):
    with pytest.raises(NotAcceptable, match="text/csv"):
        choose(accept, OFFERS)
