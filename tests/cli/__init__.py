"""Tests of the commands against a small control server and, where a terminal matters, on a real pty."""
