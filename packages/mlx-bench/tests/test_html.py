"""A report as a page."""

from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from mlx_bench.html import render_html
from mlx_bench.metrics import Point
from mlx_bench.report import Report
from mlx_bench.report_file import parse_report

type MakeReport = Callable[..., Report]

SWEEP = (Point(1, 256), Point(4, 256), Point(1, 2048), Point(4, 2048))


class _Page(HTMLParser):
    """Collects what a page would fetch, and whether its elements are closed."""

    _VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.figures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self._VOID:
            self.open.append(tag)
        self.figures += tag == "figure"
        self.fetched += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A self-closed element stays closed."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(("points", "figures"), [(SWEEP[:1], 3), (SWEEP, 12)])
def test_the_page_needs_nothing_else_and_holds_the_data(
    make_report: MakeReport, points: tuple[Point, ...], figures: int
) -> None:
    text = render_html(make_report(points))
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.fetched == []
    assert page.figures == figures
    assert "smol &lt;&amp;&gt; model" in text
    data = text.partition('id="report">')[2].partition("</script>")[0]
    assert parse_report(data, source="page").model == "smol <&> model"


def test_a_wait_of_seconds_is_shown_in_seconds(make_report: MakeReport) -> None:
    short = make_report()
    slow = replace(
        short,
        runs=tuple(replace(run, ttft_s=2.104) for run in short.runs),
        summaries=tuple(
            replace(each, ttft_s=replace(each.ttft_s, value=2.104)) for each in short.summaries
        ),
    )
    assert "TTFT, ms" in render_html(short)
    page = render_html(slow).partition('id="report">')[0]
    assert "<strong>2.10<small> s</small></strong>" in page
    assert "TTFT, s" in page
    assert "TTFT of each run, s" in page
    assert "2,104" not in page
