"""The daemon: thin shells around the pure core, wired together in ``service``."""
