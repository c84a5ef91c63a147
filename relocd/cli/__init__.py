"""The commands ``relocctl`` and, for those who are used to it, ``xm``: clients of relocd's control socket."""
