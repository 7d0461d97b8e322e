"""Every durable operation once, as a generator without I/O that yields effects."""
