"""What this host is and has."""
