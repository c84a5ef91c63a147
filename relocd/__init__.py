"""relocd moves running virtual machines ("domains") between virtualisation hosts."""

__version__ = "0.1.0"
