"""``python -m tests.bench``: relocd beside QEMU's own migration, on one machine. docs/bench.md is the guide."""
