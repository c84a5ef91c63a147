"""Settings of the daemon: the value (model), the table of keys (keys), how a file becomes a value (load)."""

from relocd.config.model import AcceleratorChoice, Compression, Config, LogLevel

__all__ = ["AcceleratorChoice", "Compression", "Config", "LogLevel"]
