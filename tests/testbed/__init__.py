"""Two virtualisation hosts, a client and real guests on one machine, for tests, benches and the demonstration.

Plain synchronous Python that shares no code with relocd, so that it cannot share its mistakes. docs/testbed.md is the
tour; the names below are all that most users need.
"""

from .commands import TestbedError
from .daemons import RelocdHost, Reply
from .guests import Guest
from .image import GuestImage, build_image, guest_cmdline
from .memcheck import MemCheck, full_sweep, guest_stat, wait_filled
from .network import GUEST_IP, Host, Shape, Testbed
from .rawqemu import MigrationFigures, RawQemu, accelerator
from .sessions import SshSession, TcpEchoSession, ssh_argv
from .streams import Recording, record_stream
from .udp import EchoStats, Gap, UdpEchoClient

__all__ = [
    "GUEST_IP",
    "EchoStats",
    "Gap",
    "Guest",
    "GuestImage",
    "Host",
    "MemCheck",
    "MigrationFigures",
    "RawQemu",
    "Recording",
    "RelocdHost",
    "Reply",
    "Shape",
    "SshSession",
    "TcpEchoSession",
    "Testbed",
    "TestbedError",
    "UdpEchoClient",
    "accelerator",
    "build_image",
    "full_sweep",
    "guest_cmdline",
    "guest_stat",
    "record_stream",
    "ssh_argv",
    "wait_filled",
]
