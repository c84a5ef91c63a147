"""The commands that cluster agents and monitoring plugins run around xm, in their own shell, on its output.

Sources: ocf:heartbeat:Xen and rgmanager's vm.sh (ClusterLabs/resource-agents), Ganeti 2.x, xendomains of Xen 4.4,
Munin's Xen plugins.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.cli.conftest import BIN
from tests.cli.control_server import ControlServer, domain, unknown_domain


@pytest.fixture(autouse=True)
def _domains(server: ControlServer) -> None:
    server.domains = [domain("web", 7), domain("db", 3, "paused"), domain("old", 4, "shutdown")]


def sh(script: str) -> str:
    """Run a line of shell with our xm first in the path and return its output, stripped."""
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "status"), [("web", "(status 2)"), ("db", "(status 1)"), ("old", "(status 0)"), ("mail", "")]
)
def test_heartbeat_reads_the_status(name: str, status: str) -> None:
    assert sh(f"xm list --long {name} 2>/dev/null | grep status | awk '{{ print $1,$2}}'") == status


def test_heartbeat_lists_the_guests_and_the_memory() -> None:
    assert sh("xm list | grep -v -e Name -e Domain-0 | awk '{print $1}'") == "db\nold\nweb"
    assert sh("xm info | grep ^total_memory | awk '{print $3}'") == "16384"
    assert sh("xm list web | awk 'NR==2 {print $4,$3}'") == "1 896"


def test_rgmanager_reads_the_first_line_of_both_streams(server: ControlServer) -> None:
    server.answer("migrate", unknown_domain("mail"))
    assert "does not exist" in sh("xm migrate -l mail hostb 2>&1 | head -1")
    assert sh("xm list | awk '$1 == \"old\" {print $1,$5}'") == "old ---s--"


def test_ganeti_cuts_every_row_into_six_fields() -> None:
    header, *rows = sh("xm list").splitlines()
    assert header.startswith("Name ")
    for row in rows:
        name, number, memory, processors, state, seconds = row.split()
        assert name
        assert (int(number), int(memory), int(processors), float(seconds)) >= (0, 0, 1, 0.0)
        assert len(state) == 6
    lines = (line.partition(":") for line in sh("xm info").splitlines())
    facts = {key.strip(): value.strip() for key, _, value in lines}
    for key in ("total_memory", "free_memory", "nr_cpus", "nr_nodes", "cores_per_socket", "threads_per_core"):
        assert int(facts[key]) >= 0
    assert (int(facts["xen_major"]), int(facts["xen_minor"])) == (4, 4)


def test_xendomains_scrapes_names_and_numbers() -> None:
    script = r"xm list -l | sed -n -e 's/^ *(domid \([0-9]*\))$/\1/p' -e 's/^ *(name \(.*\))$/\1/p'"
    assert sh(script).split() == ["0", "Domain-0", "3", "db", "4", "old", "7", "web"]
    assert sh("xm list -l | grep -c '^(domain$'") == "4"


def test_munin_reads_columns_and_info() -> None:
    assert sh("xm list | grep -v '^Name .* Time(s)$' | wc -l") == "4"
    assert sh("xm info | sed -n 's/^free_memory *: //p'") == "8192"
