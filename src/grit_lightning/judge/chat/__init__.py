"""Communication with a chat server over HTTP: client, endpoint, reply, reply cache, service thread and statistics."""
