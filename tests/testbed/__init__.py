"""A testbed."""
