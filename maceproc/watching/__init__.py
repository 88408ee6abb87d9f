"""Watch the ICMP echoes of containers while they are sent, whatever sends them."""
