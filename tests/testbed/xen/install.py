"""relocd on a Xen host, as an administrator installs it: the wheel, its unit, a configuration; run by systemd."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..commands import TestbedError, run
from ..daemons import PORT, Reply
from ..image import CHECKOUT
from ..network import SUBNET
from .host import XenHost
from .image import INSTALL_DIR

CONFIG = "/etc/relocd/relocd-config.sxp"
_UNITS = "/usr/lib/systemd/system"


def build_wheel(directory: Path) -> Path:
    """The wheel of this tree."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-build-isolation"]
    run([*pip, "--no-deps", "--wheel-dir", directory, CHECKOUT], timeout_s=300)
    (wheel,) = directory.glob("relocd-*.whl")
    return wheel


def install(host: XenHost, *, start: bool = True) -> None:
    """Install this tree on a host and have systemd start it, now and at each boot."""
    with tempfile.TemporaryDirectory(prefix="relocd-wheel-") as name:
        wheel = build_wheel(Path(name))
        host.put(wheel, "/root")
    host.put(CHECKOUT / "systemd" / "relocd.service", _UNITS)
    host.put(CHECKOUT / "systemd" / "relocd.service.d", _UNITS)
    pip = f"{INSTALL_DIR}/bin/pip install --quiet --no-index --no-deps --force-reinstall --no-compile"
    programs = " ".join(f"{INSTALL_DIR}/bin/{program}" for program in ("relocd", "relocctl", "xm"))
    host.run(f"{pip} /root/{wheel.name} && ln -sf {programs} /usr/bin/")
    configure(host, {})
    if start:
        host.run("systemctl daemon-reload && systemctl enable --quiet relocd && systemctl start relocd")


def configure(host: XenHost, settings: dict[str, str]) -> None:
    """Write relocd's configuration; it is read when relocd starts."""
    own = {
        "driver": "xen",
        "xen-relocation-server": "yes",
        "xen-relocation-port": str(PORT),
        "xen-relocation-hosts-allow": f"'{SUBNET.replace('.', '[.]')}[.][0-9]+ localhost'",
        "dom0-min-mem": "0",
    }
    text = "".join(f"({key} {value})\n" for key, value in {**own, **settings}.items())
    host.run(f"mkdir -p /etc/relocd && cat > {CONFIG}", data=text.encode())


def relocctl(host: XenHost, *words: str, check: bool = True, timeout_s: float = 300) -> Reply:
    """Run ``relocctl WORDS --json`` on a host. Raises TestbedError if it fails, unless ``check`` is off."""
    line = " ".join(["relocctl", *(f"'{word}'" for word in words), "--json"])
    output = host.run(f"{line} 2> /tmp/relocctl.err; echo \"$?\"; cat /tmp/relocctl.err >&2", timeout_s=timeout_s)
    *lines, code = output.splitlines()
    errors = host.run("cat /tmp/relocctl.err") if int(code) else ""
    reply = Reply(int(code), "\n".join(lines), errors)
    if check and reply.exit_code:
        raise TestbedError(f"{host.tap}: {line}: exit code {code}: {errors or reply.stdout}")
    return reply


def domains(host: XenHost) -> dict[str, Any]:
    """relocd's domains by name, with their states."""
    listed = relocctl(host, "list").result
    return {domain["name"]: domain["state"] for domain in listed["domains"]}


def running(host: XenHost) -> list[str]:
    """Names of the domains that Xen lets run, dom0 left out."""
    lines = host.run("xl list").splitlines()[2:]
    return [line.split()[0] for line in lines if not set("ps") & set(line.split()[-2])]


def dump(text: str) -> dict[str, Any]:
    """One JSON line."""
    value: dict[str, Any] = json.loads(text)
    return value
