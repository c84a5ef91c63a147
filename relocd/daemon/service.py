"""The composition root: builds every part once, starts them in order, stops them in reverse."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from pathlib import Path
from typing import Any, TextIO

import psutil
from attrs import frozen
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relocd.allow import AllowList
from relocd.config import Config
from relocd.config.load import load_config
from relocd.daemon.context import Context
from relocd.daemon.control import ControlFactory, listen_control
from relocd.daemon.doorway import DoorwayFactory
from relocd.daemon.firewall import Firewall
from relocd.daemon.gate import Gate
from relocd.daemon.lookup import Resolver
from relocd.daemon.notify import notify
from relocd.daemon.relocations import Relocations
from relocd.daemon.session import Session
from relocd.daemon.spares import Spares
from relocd.daemon.trust import Trust, load_credentials
from relocd.daemon.verbs import Desk
from relocd.drivers.base import DriverPaths
from relocd.drivers.registry import load_driver
from relocd.errors import ConfigError, RelocdError
from relocd.host import bootstore
from relocd.journal import Journal

#: The longest run directory that is used by its own name.
RUN_DIR_MAX_BYTES = 48

#: Connections that the system holds until they are accepted. With fewer, a burst of them makes an honest host's first
#: packets be dropped, and each costs it a second.
BACKLOG = 1024

#: How often it is looked whether the certificate ends soon.
EXPIRY_INTERVAL_S = 86400.0


@frozen
class Places:
    """Where this daemon keeps what: given on the command line, so that two can run on one machine."""

    config_file: Path
    state_dir: Path
    run_dir: Path

    @property
    def boot_dir(self) -> Path:
        return self.state_dir / "boot"

    @property
    def log_dir(self) -> Path:
        return self.state_dir / "log"


class Service:
    """One daemon."""

    log = Logger()

    def __init__(self, reactor: Any, config: Config, places: Places) -> None:
        self._reactor = reactor
        self._places = places
        self._lock = _prepare_directories(places)
        self._run_dir = short_name(places.run_dir)
        self._resolver = Resolver(reactor, config.lookup_timeout_s)
        driver_paths = DriverPaths(
            state=places.state_dir, run=self._run_dir, boot=places.boot_dir, log=places.log_dir
        )
        self._context = Context(
            reactor=reactor,
            config=config,
            driver=load_driver(config.driver)(config, driver_paths),
            carriers=Spares(reactor),
            journal=Journal(places.state_dir / "journal.sqlite", reactor),
            trust=Trust(config, self._resolver),
            boot_dir=places.boot_dir,
            log_dir=places.log_dir,
            config_file=places.config_file,
            state_dir=places.state_dir,
            run_dir=places.run_dir,
        )
        self._gate = Gate(AllowList(config.hosts_allow), self._resolver)
        self._firewall = Firewall(self._context, self._resolver)
        self._relocations = Relocations(self._context)
        self._control = ControlFactory(Desk(self._context, self._relocations, self._gate, self._firewall))
        self._ports: list[Any] = []
        self._watchdog = LoopingCall(notify, "WATCHDOG=1")
        self._expiry = LoopingCall(self._context.trust.warn)
        self._expiry.clock = reactor

    async def start(self) -> None:
        """Take up the running domains and open relocations, then open the doors and say that we are ready."""
        bootstore.sweep(self._places.boot_dir)
        await self._context.driver.start()
        await self._relocations.recover()
        await self._context.tunnels.start()
        await self._firewall.start()
        if self._context.config.relocation_server:
            self._listen()
            self._firewall.look()
        self._ports.append(
            listen_control(self._reactor, self._places.run_dir / "control.sock", self._control)
        )
        self._context.carriers.start()
        self._start_watchdog()
        self._expiry.start(EXPIRY_INTERVAL_S)
        domains = len(self._context.driver.list())
        self.log.info(
            "relocd is ready: {domains} domains, relocation port {port}",
            domains=domains,
            port=self._context.port or "closed",
        )
        notify("READY=1", f"STATUS={domains} domains, relocation port {self._context.port or 'closed'}")

    def _listen(self) -> None:
        config = self._context.config
        factory = DoorwayFactory(
            self._reactor,
            self._gate,
            lambda dialogue: _keep(Session(dialogue, self._relocations)),
            self._context.trust,
            lambda: self._context.config,
        )
        address = resolve_bind_address(config.relocation_address)
        port = _listen_tcp(self._reactor, config.relocation_port, factory, address)
        self._context.port = port.getHost().port
        self._ports.append(port)

    def _start_watchdog(self) -> None:
        interval_us = int(os.environ.get("WATCHDOG_USEC", "0"))
        if interval_us:
            self._watchdog.clock = self._reactor
            self._watchdog.start(interval_us / 2e6)

    def reload(self) -> None:
        """Read the configuration again and use what can change while running: the allow-list, limits, timeouts.

        The certificates are read again, too. A broken file changes nothing.
        """
        notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            loaded = load_config(
                self._places.config_file.read_text("utf-8"), source=str(self._places.config_file)
            )
            allow = AllowList(loaded.config.hosts_allow)
            credentials = load_credentials(loaded.config)
        except (RelocdError, OSError, UnicodeDecodeError) as error:
            self.log.error("the configuration was not reloaded: {error}", error=error)
        else:
            for warning in loaded.warnings:
                self.log.warn("{warning}", warning=warning)
            self._gate.replace(allow)
            self._context.config = loaded.config
            self._context.trust.reload(loaded.config.tls, credentials)
            self._context.trust.warn()
            self._relocations.share()
            self._firewall.reload()
            self.log.info("reloaded {file}", file=self._places.config_file)
        notify("READY=1")

    async def stop(self) -> None:
        """Close the doors, end what is undecided, let go of the domains, which keep running."""
        notify("STOPPING=1")
        if self._watchdog.running:
            self._watchdog.stop()
        if self._expiry.running:
            self._expiry.stop()
        for port in self._ports:
            await port.stopListening()
        await self._relocations.stop()
        self._context.carriers.stop()
        await self._context.tunnels.stop()
        await self._firewall.stop()
        await self._control.flush(self._reactor)
        if self._run_dir.is_symlink() and not self._context.driver.list():
            self._run_dir.unlink()
        await self._context.driver.stop()
        self._context.journal.close()
        self._lock.close()
        self.log.info("relocd has stopped; the domains keep running")


def short_name(directory: Path) -> Path:
    """A name of this directory that is short enough for the sockets of domains below it.

    A unix socket's path has at most 107 bytes (unix(7)), and a domain's are 58 bytes below the run directory. A
    longer directory gets a link in /run (or /tmp), always of the same name, so that domains are found again by it.
    """
    if len(os.fsencode(directory)) <= RUN_DIR_MAX_BYTES:
        return directory
    parent = Path("/run") if os.access("/run", os.W_OK) else Path("/tmp")
    alias = parent / f"relocd-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"
    if not alias.is_symlink():
        alias.symlink_to(directory)
    elif alias.readlink() != directory:
        raise RelocdError(
            f"{alias} leads elsewhere than to {directory}", hint="Remove it, or use a shorter --run-dir."
        )
    return alias


def resolve_bind_address(address: str) -> str:
    """An address to bind to: as given, or the first IPv4 address of the interface of that name."""
    interfaces = psutil.net_if_addrs()
    for entry in interfaces.get(address, ()):
        if entry.family.name == "AF_INET":
            return str(entry.address)
    if address in interfaces:
        raise ConfigError(f"xen-relocation-address: interface {address} has no IPv4 address")
    return address


def _listen_tcp(reactor: Any, port: int, factory: DoorwayFactory, address: str) -> Any:
    """Listen on one address, or on all of them: IPv6 takes IPv4 along, and hosts without IPv6 get IPv4."""
    try:
        if address:
            return reactor.listenTCP(port, factory, backlog=BACKLOG, interface=address)
        try:
            return reactor.listenTCP(port, factory, backlog=BACKLOG, interface="::")
        except CannotListenError as error:
            if getattr(error.socketError, "errno", None) not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            return reactor.listenTCP(port, factory, backlog=BACKLOG)
    except CannotListenError as error:
        raise RelocdError(
            f"cannot listen on relocation port {port}: {error.socketError}",
            hint="Is another relocd or xend running? 'ss -ltnp' shows who has the port.",
        ) from error


def _prepare_directories(places: Places) -> TextIO:
    """Make the directories, for root only, and lock the state against a second daemon."""
    for directory in (places.state_dir, places.run_dir, places.boot_dir, places.log_dir):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (places.state_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RelocdError(
            f"another relocd uses {places.state_dir}", hint="Stop it first, or use another --state-dir."
        ) from error
    return lock


def _keep(_: object) -> None:
    """A session lives by its connection's callbacks."""
