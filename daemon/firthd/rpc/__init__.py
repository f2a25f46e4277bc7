"""JSON-RPC over the Unix socket: bytes in, bytes out."""
