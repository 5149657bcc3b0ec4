"""Asking a chat server over HTTP: client, endpoint, reply, cache of replies, service thread and statistics."""
