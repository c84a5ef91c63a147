"""The network a domain comes back to: is it the same L2 segment, what tells it of the move, what joins two. Pure."""
