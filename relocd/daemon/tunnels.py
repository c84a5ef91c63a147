"""This host's ends of tunnels: made when two bridges have to be joined, kept as long as a domain needs them.

A host at which domains are guests knows whether they still are. The other one asks, and keeps its end as long as it
gets no answer: a tunnel too many costs nothing, one too few cuts a domain off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from attrs import evolve
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relocd.config.model import L2Mode
from relocd.daemon.background import background
from relocd.daemon.calling import call
from relocd.daemon.connect import Peer, expect, greet
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.drivers.worker import Worker
from relocd.errors import DriverError, RelocdError
from relocd.host.tunnels import TunnelStore
from relocd.net.names import instance_tag
from relocd.net.vxlan import TunnelDevices
from relocd.segment.tunnel import Tunnel, vni_candidates
from relocd.wire.messages import Hello
from relocd.wire.network import End, MakeTunnel, TunnelMade, TunnelUse, TunnelUsed

#: How often it is looked whether a tunnel is needed, if nothing happens that may change that.
LOOK_INTERVAL_S = 60.0

#: What happens comes in bursts; and the other end is asked when it has heard of it, too.
LOOK_SOON_S = 1.0

#: A tunnel that was made or probed is needed by a relocation that has not come to say so yet.
FRESH_S = 30.0


class Tunnels:
    """The register of tunnels. ``moving`` tells which domains are being relocated, in or out."""

    log = Logger()

    def __init__(self, context: Context, moving: Callable[[], frozenset[UUID]]) -> None:
        self._context = context
        self._moving = moving
        self._worker = Worker("tunnels")
        self._store = TunnelStore(context.state_dir)
        self._devices: TunnelDevices | None = None
        self._tunnels: dict[int, Tunnel] = {}
        self._fresh: dict[int, float] = {}
        self._changing = DeferredLock()
        self.joining = DeferredLock()
        self._look_call: IDelayedCall | None = None
        self._looking = LoopingCall(self.look_soon)
        self._looking.clock = context.reactor

    async def start(self) -> None:
        """Take up the tunnels of a former daemon; remove devices that no record speaks of."""
        unreadable: list[int] = []
        for vni, found in await self._worker.run(lambda: list(self._store.load())):
            if isinstance(found, Tunnel):
                self._tunnels[vni] = found
                await self._take_up(found)
            else:
                unreadable.append(vni)
                self.log.critical("a tunnel's record cannot be read, its device stays: {why}", why=found)
        await self._sweep([*self._tunnels, *unreadable])
        self._looking.start(LOOK_INTERVAL_S)

    async def stop(self) -> None:
        """Let go; tunnels stay as they are."""
        if self._looking.running:
            self._looking.stop()
        if self._look_call is not None and self._look_call.active():
            self._look_call.cancel()
        if self._devices is not None:
            await self._worker.run(self._devices.close)
        self._worker.stop()

    async def _take_up(self, tunnel: Tunnel) -> None:
        try:
            await self._make_device(tunnel)
        except DriverError as error:
            self.log.error("tunnel {vni}: {error}. {hint}", vni=tunnel.vni, error=error, hint=error.hint)

    async def _sweep(self, kept: list[int]) -> None:
        try:
            devices = await self._open_devices()
            for name in await self._worker.run(devices.sweep, kept):
                self.log.warn("removed {name}, a tunnel without a record", name=name)
        except (DriverError, OSError) as error:
            self.log.error("cannot look for stray tunnels: {error}", error=error)

    # -- domains that use them -------------------------------------------------------------------------------------

    async def going(self, domain: UUID, bridges: Iterable[str], remote: str) -> None:
        """A domain of this host is about to be proposed to a host. On disk when this returns."""
        await self._note(bridges, remote, lambda tunnel: tunnel.going(domain, remote))

    async def coming(self, domain: UUID, bridges: Iterable[str], remote: str) -> None:
        """A domain has been promised a place here. On disk when this returns."""
        await self._note(bridges, remote, lambda tunnel: tunnel.coming(domain, remote))

    async def _note(self, bridges: Iterable[str], remote: str, change: Callable[[Tunnel], Tunnel]) -> None:
        """From here on it is the relocation that speaks for a tunnel."""
        names = frozenset(bridges)
        for tunnel in list(self._tunnels.values()):
            if tunnel.bridge in names:
                if change(tunnel) != tunnel:
                    await self._save(change(tunnel))
                if tunnel.remote == remote:
                    self._fresh.pop(tunnel.vni, None)

    def touch(self, remote: str) -> None:
        """A relocation from there has begun: it may rest on what is there now."""
        for tunnel in self._tunnels.values():
            if tunnel.remote == remote:
                self._fresh[tunnel.vni] = time.monotonic() + FRESH_S

    # -- making them -----------------------------------------------------------------------------------------------

    async def join(self, dialogue: Dialogue, theirs: Hello, bridge: str) -> str:
        """Have both ends of a tunnel to a peer made. Empty, or why it cannot be. Raises PeerUnreachable.

        Whether frames pass is for a probe to say. ``joining`` is to be held.
        """
        config = self._context.config
        for vni in self._numbers(dialogue, bridge):
            try:
                if await self._is_taken(vni, bridge, dialogue.peer):
                    continue
                dialogue.send(MakeTunnel(bridge, vni, config.tunnel_port))
                answer = expect(await dialogue.receive(config.connect_timeout_s), TunnelMade, dialogue.peer)
                if answer.end is End.TAKEN:
                    continue
                if answer.end is not End.MADE:
                    return f"{theirs.host}: {answer.text}"
                await self._make(dialogue, theirs, bridge, vni)
            except DriverError as error:
                return f"{error}. {error.hint}".rstrip(". ")
            return ""
        return "no free VXLAN number was found"

    def _numbers(self, dialogue: Dialogue, bridge: str) -> Iterator[int]:
        known = self._find(dialogue.peer, bridge)
        if known is not None:
            yield known.vni
        yield from vni_candidates(dialogue.address, dialogue.peer, bridge)

    async def serve(self, wish: MakeTunnel, theirs: Hello, dialogue: Dialogue) -> None:
        """A peer wants the end here made."""
        config = self._context.config
        if config.l2 is not L2Mode.TUNNEL:
            answer = TunnelMade(End.UNABLE, "xen-relocation-l2 is not tunnel")
        elif wish.port != config.tunnel_port:
            answer = TunnelMade(End.UNABLE, f"xen-relocation-tunnel-port is {config.tunnel_port}")
        else:
            answer = await self._serve(wish, theirs, dialogue)
        dialogue.send(answer)

    async def _serve(self, wish: MakeTunnel, theirs: Hello, dialogue: Dialogue) -> TunnelMade:
        try:
            if await self._is_taken(wish.vni, wish.bridge, dialogue.peer):
                return TunnelMade(End.TAKEN)
            await self._make(dialogue, theirs, wish.bridge, wish.vni)
        except DriverError as error:
            return TunnelMade(End.UNABLE, f"{error}. {error.hint}".rstrip(". "))
        return TunnelMade(End.MADE)

    async def _make(self, dialogue: Dialogue, theirs: Hello, bridge: str, vni: int) -> None:
        """On disk, then as a device. Another one to the same bridge there is replaced, with those who use it."""
        port = self._context.config.tunnel_port
        tunnel = Tunnel(vni, bridge, dialogue.address, dialogue.peer, port, theirs.port)
        async with self._changing:
            before = self._find(dialogue.peer, bridge)
            if before is not None:
                tunnel = evolve(tunnel, home=before.home, guests=before.guests, onward=before.onward)
            self._fresh[vni] = time.monotonic() + FRESH_S
            await self._save(tunnel)
            if before is not None and before.vni != vni:
                await self._remove(before)
            try:
                await self._make_device(tunnel)
            except DriverError:
                if before is None:
                    await self._remove(tunnel)
                raise
        self.log.info(
            "tunnel {vni} joins {bridge} with that of {remote}", vni=vni, bridge=bridge, remote=tunnel.remote
        )

    async def drop(self, bridge: str, remote: str) -> None:
        """A tunnel does not do: take this end away, now."""
        async with self._changing:
            tunnel = self._find(remote, bridge)
            if tunnel is not None:
                await self._remove(tunnel)

    async def _is_taken(self, vni: int, bridge: str, remote: str) -> bool:
        known = self._tunnels.get(vni)
        if known is not None and (known.bridge, known.remote) != (bridge, remote):
            return True
        devices = await self._open_devices()
        return await self._worker.run(devices.taken, vni, self._context.config.tunnel_port)

    def _find(self, remote: str, bridge: str) -> Tunnel | None:
        ends = (
            tunnel for tunnel in self._tunnels.values() if (tunnel.remote, tunnel.bridge) == (remote, bridge)
        )
        return next(ends, None)

    # -- are they needed? ------------------------------------------------------------------------------------------

    def tell_use(self, question: TunnelUse, dialogue: Dialogue) -> None:
        """Answer the other end; that it asks means that it does not need the tunnel itself."""
        tunnel = self._tunnels.get(question.vni)
        needed = tunnel is not None and tunnel.remote == dialogue.peer and self._wanted(self._settled(tunnel))
        dialogue.send(TunnelUsed(needed))
        if not needed:
            self.look_soon()

    def look_soon(self) -> None:
        """Something has happened to a domain or a relocation."""
        if self._tunnels and (self._look_call is None or not self._look_call.active()):
            self._look_call = self._context.reactor.callLater(
                LOOK_SOON_S, lambda: background(self._look(), "looking after tunnels")
            )

    async def _look(self) -> None:
        for vni in list(self._tunnels):
            tunnel = await self._settle(vni)
            if tunnel is None or self._wanted(tunnel) or await self._peer_needs(tunnel):
                continue
            if not self._looking.running:
                return  # the daemon stops
            async with self._changing:
                now = await self._settle(vni)  # the question took a while
                if now is not None and not self._wanted(now):
                    await self._remove(now)

    async def _settle(self, vni: int) -> Tunnel | None:
        """What is known of a tunnel, after a look at the domains of this host; None if it is gone."""
        before = self._tunnels.get(vni)
        if before is None or before == (settled := self._settled(before)):
            return before
        await self._save(settled)
        return settled

    def _settled(self, tunnel: Tunnel) -> Tunnel:
        living = frozenset(status.uuid for status in self._context.driver.list())
        return tunnel.settled(living, self._moving())

    def _wanted(self, tunnel: Tunnel) -> bool:
        fresh = time.monotonic() < self._fresh.get(tunnel.vni, 0.0)
        return fresh or tunnel.needed(self._moving())

    async def _peer_needs(self, tunnel: Tunnel) -> bool:
        """Ask the other end; while it does not answer it is taken to say yes."""
        timeout_s = self._context.config.connect_timeout_s
        try:
            dialogue = await call(self._context, Peer(tunnel.remote, tunnel.peer_port))
            try:
                await greet(dialogue, self._context.hello(), timeout_s)
                dialogue.send(TunnelUse(tunnel.vni))
                return expect(await dialogue.receive(timeout_s), TunnelUsed, dialogue.peer).needed
            finally:
                dialogue.close()
        except RelocdError as error:
            self.log.info("tunnel {vni} is kept: {error}", vni=tunnel.vni, error=error)
            return True

    def describe(self) -> list[str]:
        """What an operator is shown: one sentence for each end here."""
        return [
            f"{tunnel.bridge} to {tunnel.remote} (VNI {tunnel.vni}; guests here: {len(tunnel.guests)})"
            for tunnel in self._tunnels.values()
        ]

    # -- small things ----------------------------------------------------------------------------------------------

    async def _save(self, tunnel: Tunnel) -> None:
        """Raises DriverError."""
        try:
            await self._worker.run(self._store.save, tunnel)
        except OSError as error:
            raise DriverError(f"cannot write the record of tunnel {tunnel.vni}: {error}") from error
        self._tunnels[tunnel.vni] = tunnel

    async def _remove(self, tunnel: Tunnel) -> None:
        devices = await self._open_devices()
        try:
            await self._worker.run(devices.unmake, tunnel)
            await self._worker.run(self._store.remove, tunnel.vni)
        except (DriverError, OSError) as error:
            self.log.error("tunnel {vni} is not removed yet: {error}", vni=tunnel.vni, error=error)
            return
        self._tunnels.pop(tunnel.vni, None)
        self._fresh.pop(tunnel.vni, None)
        self.log.info("tunnel {vni} to {remote} is removed", vni=tunnel.vni, remote=tunnel.remote)

    async def _make_device(self, tunnel: Tunnel) -> None:
        devices = await self._open_devices()
        await self._worker.run(devices.make, tunnel)

    async def _open_devices(self) -> TunnelDevices:
        """The connection to the kernel, made when it is first needed."""
        if self._devices is None:
            tag = instance_tag(str(self._context.run_dir))
            try:
                self._devices = await self._worker.run(TunnelDevices, tag)
            except OSError as error:
                raise DriverError(f"cannot speak to the kernel about tunnels: {error}") from error
        return self._devices
