"""Preflight: a yes or no with reasons, before anything moves. Pure."""
