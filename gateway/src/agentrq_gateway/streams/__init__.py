"""What a stream is made of: sessions followed once for all clients, and frames of server-sent events."""
