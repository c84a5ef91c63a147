"""The page stream: what lies between a hypervisor's bytes and the lanes, without any I/O.

``codecs`` turn a hypervisor's stream into ``items`` and back, byte for byte (QEMU's, Xen's, or an unknown
one); ``batch`` packs items; ``frames`` puts batches on a lane; ``window`` puts them in order again; ``digest``
proves that both ends saw the same; ``choice`` decides what is worth compressing. ``docs/page-stream.md`` is
the specification of the bytes.
"""
