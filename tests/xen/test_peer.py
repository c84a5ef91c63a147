"""A guest moved in turn by ``xl migrate`` over ssh and by relocd: the figures are printed, not judged."""

from __future__ import annotations

import pytest

from tests.bench.report import Result, report
from tests.bench.scenarios import SCENARIOS
from tests.bench.xen import in_turn
from tests.xen.scene import XenScene

pytestmark = [pytest.mark.xen, pytest.mark.timeout(2400)]


def test_beside_xl(scene: XenScene, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = SCENARIOS["xen"]
    (load,) = scenario.loads
    result = Result.of("xen", scenario, *in_turn(scene, load, scenario.runs, lambda *_: None))
    with capsys.disabled():
        print("", f"{result.name}: {scenario.title}", *report(result), sep="\n")
    assert result.sound
