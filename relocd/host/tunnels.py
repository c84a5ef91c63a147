"""The records of tunnels, one file each: STATE/tunnels/VNI.sxp. Written before the device is made. Blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relocd.errors import ConfigError
from relocd.host.files import sync_directory, write_whole
from relocd.segment.tunnel import Tunnel, from_text, to_text


class TunnelStore:
    """What is known of tunnels while no daemon runs."""

    def __init__(self, state: Path) -> None:
        self._directory = state / "tunnels"

    def save(self, tunnel: Tunnel) -> None:
        """Write a record; it is on disk when this returns. Raises OSError."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        write_whole(self._path(tunnel.vni), to_text(tunnel).encode())

    def remove(self, vni: int) -> None:
        """Forget a tunnel. Idempotent."""
        if self._path(vni).exists():
            self._path(vni).unlink()
            sync_directory(self._directory)

    def load(self) -> Iterator[tuple[int, Tunnel | str]]:
        """Each number with its record, or with why it cannot be read."""
        for path in sorted(self._directory.glob("*.sxp")):
            if path.stem.isdecimal():
                try:
                    yield int(path.stem), from_text(path.read_text("utf-8"), source=str(path))
                except (ConfigError, ValueError, OSError) as error:
                    yield int(path.stem), f"{path}: {error}"

    def _path(self, vni: int) -> Path:
        return self._directory / f"{vni}.sxp"
