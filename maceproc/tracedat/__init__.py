"""trace.dat, as trace-cmd writes it, into typed tables."""
