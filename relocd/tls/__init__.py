"""TLS between hosts: certificates, the authority that issues them, and a channel without sockets of its own."""
