"""The bar of a balloon on its way: on a narrow terminal the name is whole, and the bar goes."""

import pytest

from qmpmem.units import MIB, Bytes
from qmpmem.view.progress_bar import progress_bar


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("name", ["web1", "g-8247fa5984c4"])
def test_a_name_and_its_sizes_are_whole_at_any_width(
    width: int, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar(name, Bytes(512 * MIB), Bytes(256 * MIB)) as show:
        show(Bytes(300 * MIB))
    shown = capsys.readouterr().out
    assert name in shown
    assert "→ 256 MiB" in shown
    assert "…" not in shown
    assert ("0:00:0" in shown) == (width > 40 or name == "web1")
