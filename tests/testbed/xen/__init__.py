"""Real Xen hosts inside QEMU, for tests: their disk image, their start from a snapshot, two on one segment."""
