"""The table of services, in terminals of every width."""

import pytest

from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.services import show_service_table
from mlx_stack.services.status import ServiceRow


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 140])
def test_the_narrowest_terminal_shows_which_service_and_how_it_is(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    row = ServiceRow(
        name="standard",
        kind="engine",
        state="degraded",
        model="a-model-with-quite-a-long-name",
        port=8000,
        pid=12345,
        uptime_s=4000.0,
        response_ms=2500.0,
        memory_bytes=9_000_000_000,
        last_error=None,
        restarts=0,
        flapping=False,
        loaded=True,
        is_at_rest=False,
    )
    show_service_table(Output(), (row,))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (3 if columns == 80 else 2)  # the model's name is folded, not cut
    assert "standard" in lines[1]
    assert "degraded" in lines[1]
    assert all(len(line) <= columns for line in lines)
    if columns >= 80:
        figures = ["8000", "12345", "1 h 6 min", "9.0 GB", "2.5 s"]
        assert [each for each in figures if each not in lines[1]] == []
        assert "Uptime" in lines[0]
        assert "a-model-with-quite-a-long-name".endswith(lines[-1].split()[0]) or columns > 80
