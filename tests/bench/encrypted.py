"""relocd with TLS and without, in turn."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from tests.bench.compare import Found, Told, warm
from tests.bench.figures import OWN, Load
from tests.bench.own import Own
from tests.certificates import secure
from tests.scene import Scene
from tests.testbed.network import Shape

PLAIN = "relocd, plain"


def encrypted(load: Load, link: str | None, runs: int, tell: Told) -> Found:
    """The same guest once without TLS and once with it a run; the daemons are started anew for each."""
    found: Found = {PLAIN: [], OWN: []}, 0
    with contextlib.ExitStack() as stack:
        settings = secure(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        scene = stack.enter_context(Scene(settings=settings))
        own = Own(scene, load)
        own.wait_filled()
        if link:
            scene.network.shape(Shape(rate=link))
        for number in range(runs):
            for name, mode in ((PLAIN, "off"), (OWN, "require")):
                for host in (scene.a, scene.b):
                    host.terminate()
                    host.write_config({**settings, "xen-relocation-tls": mode})
                    host.start()
                warm(load.memory_mib)
                found[0][name].append(own.move())
                tell(number, name, found[0][name][-1])
        return found[0], own.stat().bad
