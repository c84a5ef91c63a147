"""Real Xen hosts inside QEMU, for tests: their disk image, their start from a snapshot, and the two on one segment."""
