"""relocd on a Xen host, as an administrator installs it: the wheel, its unit, a configuration; run by systemd."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..commands import TestbedError, run
from ..daemons import PORT, Reply
from ..image import CHECKOUT
from ..network import SUBNET
from .host import XenHost
from .image import INSTALL_DIR

CONFIG = "/etc/relocd/relocd-config.sxp"
CONSOLES = "/var/lib/relocd/log"
_UNITS = "/usr/lib/systemd/system"

# An emulated host needs seconds to start relocctl, and the answer of the daemon itself is what tests ask for most.
_ASK = """#!/usr/bin/python3 -IS
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect("/run/relocd/control.sock")
    sock.sendall(sys.argv[1].encode() + b"\\n")
    print(sock.makefile().readlines()[-1])
"""


class Installed:
    """relocd on one host."""

    def __init__(self, host: XenHost) -> None:
        self.host = host

    def install(self) -> Installed:
        """Install this tree and have systemd start it, now and at each boot."""
        with tempfile.TemporaryDirectory(prefix="relocd-wheel-") as name:
            wheel = _build_wheel(Path(name))
            self.host.put(wheel, "/root")
        self.host.put(CHECKOUT / "systemd" / "relocd.service", _UNITS)
        self.host.put(CHECKOUT / "systemd" / "relocd.service.d", _UNITS)
        pip = f"{INSTALL_DIR}/bin/pip install --quiet --no-index --no-deps --force-reinstall"
        programs = " ".join(f"{INSTALL_DIR}/bin/{program}" for program in ("relocd", "relocctl", "xm"))
        self.host.run(f"{pip} /root/{wheel.name} && ln -sf {programs} /usr/bin/")
        self.host.run("cat > /usr/local/bin/ask && chmod +x /usr/local/bin/ask", data=_ASK.encode())
        self.configure({})
        self.prefer_dom0()
        self.host.run("systemctl daemon-reload && systemctl enable --quiet relocd && systemctl start relocd")
        return self

    def prefer_dom0(self) -> None:
        """The only processor is dom0's first, which moves the guests. Lasts until the next boot."""
        self.host.run("xl sched-credit2 -d 0 -w 4096")

    def configure(self, settings: Mapping[str, str]) -> None:
        """Write relocd's configuration; it is read when relocd starts."""
        own = {
            "driver": "xen",
            "xen-relocation-server": "yes",
            "xen-relocation-port": str(PORT),
            "xen-relocation-hosts-allow": f"'{SUBNET.replace('.', '[.]')}[.][0-9]+ localhost'",
            "dom0-min-mem": "0",
            # Emulated processors take their time, above all to compress.
            "xen-relocation-switchover-timeout": "120",
            "xen-relocation-compression": "none",
        }
        text = "".join(f"({key} {value})\n" for key, value in {**own, **settings}.items())
        self.host.run(f"mkdir -p /etc/relocd && cat > {CONFIG}", data=text.encode())

    def relocctl(self, *words: str, check: bool = True, timeout_s: float = 1200) -> Reply:
        """Run ``relocctl WORDS --json``. Raises TestbedError if it fails, unless ``check`` is off."""
        line = " ".join(["relocctl", *map(shlex.quote, words), "--json"])
        told = self.host.run(f"{line} 2> /tmp/told; echo $?; cat /tmp/told", timeout_s=timeout_s).splitlines()
        at = next(number for number, text in enumerate(told) if text.isdigit())
        reply = Reply(int(told[at]), "\n".join(told[:at]), "\n".join(told[at + 1 :]))
        if check and reply.exit_code:
            raise TestbedError(f"{self.host.tap}: {line}: exit code {reply.exit_code}: {reply.stderr}")
        return reply

    def ask(self, verb: str, **fields: object) -> Any:
        """The daemon's own answer to a request (docs/control.md)."""
        request = json.dumps({"verb": verb, **fields})
        return json.loads(self.host.run(f"ask {shlex.quote(request)}"))

    def states(self) -> dict[str, str]:
        """relocd's domains: name to state."""
        return {domain["name"]: domain["state"] for domain in self.ask("list")["domains"]}

    def xen_states(self) -> dict[str, str]:
        """Xen's own domains, dom0 left out: name to the letters of its state."""
        lines = [line.split() for line in self.host.run("xl list").splitlines()[2:]]
        return {words[0]: words[-2] for words in lines}

    def running(self) -> list[str]:
        """Names of the domains that Xen lets run."""
        return [name for name, letters in self.xen_states().items() if not set("psc") & set(letters)]

    def log(self) -> str:
        """What relocd logged."""
        return self.host.run("journalctl -u relocd --no-pager -o cat | tail -n 60")


def _build_wheel(directory: Path) -> Path:
    """The wheel of this tree, built in a copy of it: what lies about from earlier builds does not get in."""
    tree = directory / "tree"
    tree.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, tree)
    shutil.copytree(CHECKOUT / "relocd", tree / "relocd", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-build-isolation",
    ]
    run([*pip, "--no-deps", "--wheel-dir", directory, tree], timeout_s=300)
    (wheel,) = directory.glob("relocd-*.whl")
    return wheel
