"""The dialogue between two daemons: messages, their text form, and lines cut from a byte stream. Pure."""
