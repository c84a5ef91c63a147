"""``python -m tests.testbed build|up|clean``: the testbed for people."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import namespaces
from .commands import TestbedError
from .daemons import PROGRAMS, RelocdHost
from .guests import Guest
from .image import build_image, cache_directory
from .network import Shape, Testbed
from .sessions import ssh_argv


def build(options: argparse.Namespace) -> None:
    """Build the guest image, or find it in the cache."""
    began_s = time.monotonic()
    image = build_image(update_kernel=options.update_kernel)
    print(f"{image.kernel.parent} ({time.monotonic() - began_s:.1f} s)")


def up(options: argparse.Namespace) -> None:
    """Bring up two hosts with a daemon each, until Ctrl-C."""
    image = build_image()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relocd-testbed-")))
        bed = stack.enter_context(Testbed(Shape(rate=options.rate) if options.rate else None))
        for host in bed.hosts:
            stack.enter_context(RelocdHost(host, directory / host.name))
        guest = Guest(options={"dirty_mb_s": 10})
        config = directory / "guest.cfg"
        config.write_text(guest.domain_file(image))
        print(f"Two hosts are up, {bed.hosta.address} and {bed.hostb.address}; logs are below {directory}.\n")
        print("A shell on each of them:")
        for host in bed.hosts:
            socket = directory / host.name / "run" / "control.sock"
            print(
                f"  {host.name}:  ip netns exec {host.netns} env RELOCD_SOCKET={socket} PATH={PROGRAMS}:$PATH bash"
            )
        print(f"  client: ip netns exec {bed.client.netns} bash")
        print(f"\nOn hosta:  relocctl create {config}")
        print(f"           relocctl migrate --live {guest.name} {bed.hostb.address}")
        print(
            f"From the client:  {' '.join(ssh_argv(image, guest.ip, 'uptime'))}\n\nCtrl-C removes everything."
        )
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def clean(options: argparse.Namespace) -> None:
    """Remove what runs that are no longer alive left behind."""
    for name in namespaces.remove_leftovers():
        print(f"removed {name}")
    if options.cache:
        shutil.rmtree(cache_directory(), ignore_errors=True)
        print(f"removed {cache_directory()}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.testbed", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (build, up, clean):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        if function is build:
            command.add_argument(
                "--update-kernel", action="store_true", help="look for a newer kernel package"
            )
        if function is up:
            command.add_argument(
                "--rate", default="", help="limit of the links, such as 1gbit (default: none)"
            )
        if function is clean:
            command.add_argument("--cache", action="store_true", help="the cached guest image too")
    options = parser.parse_args()
    try:
        options.function(options)
    except TestbedError as error:
        sys.exit(f"testbed: {error}")


if __name__ == "__main__":
    main()
