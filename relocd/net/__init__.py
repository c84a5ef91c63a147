"""The host's network: devices, announcements, firewall."""
