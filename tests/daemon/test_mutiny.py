"""A carrier that was taken over costs its relocation, with a reason, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon.rig import Daemon, arrived, at_home

#: What every Python that is started with this on its path does first: {deed} is done by whoever moves pages.
_TAKEN_OVER = """
import os
from relocd.carrier.{side} import {cls}
def mutiny(self, *lane):
    {deed}
{cls}._move = mutiny
"""


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("os.execv('/bin/sh', ['sh'])", "the kernel ended it for a system call that carriers may not make"),
        ("open('/etc/passwd')", "PermissionError(1, 'Operation not permitted')"),
    ],
)
def test_it_ends_the_relocation_and_the_domain_stays(
    source: Daemon,
    target: Daemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: str,
    deed: str,
    said: str,
) -> None:
    text = _TAKEN_OVER.format(side=side, cls=side.capitalize(), deed=deed)
    (tmp_path / "sitecustomize.py").write_text(text)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        outcome = source.migrate(target.port)
    assert outcome["outcome"] == "failed"
    # A source whose carrier is ended may hear of the lanes' end from its peer first.
    assert said in outcome["error"] or (side == "source" and "was closed by the peer" in outcome["error"])
    at_home(source, target)
    assert source.migrate(target.port)["outcome"] == "completed"
    arrived(source, target)
