"""The carrier: one process per relocation and side, which moves the page stream between a hypervisor and the
lanes.

It parses what the peer sends and is therefore kept apart: it is handed descriptors, has no privilege, and its
death ends one relocation, never a domain. ``control`` is what the daemon needs; the rest runs in the process.
"""
