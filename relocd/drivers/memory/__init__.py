"""A hypervisor in this process's memory: guests that are counters, with a stream that is real.

It passes the contract tests of every driver and can be told to fail at any step, so that the daemon can be tested
fast and at its edges. A host of it outlives the driver, as QEMU processes do.
"""

from relocd.drivers.memory.driver import MemoryDriver
from relocd.drivers.memory.host import Host, Step, forget_hosts, host_at

__all__ = ["Host", "MemoryDriver", "Step", "forget_hosts", "host_at"]
