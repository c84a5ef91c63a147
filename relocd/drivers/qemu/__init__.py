"""The QEMU driver: domains are QEMU processes that live on when relocd stops."""
