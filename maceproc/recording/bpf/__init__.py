"""The tracer in the kernel: eBPF programs that follow ICMP echoes, and what loads them."""
