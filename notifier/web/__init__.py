"""Ways in over HTTP: the authenticated API, and the public pages and webhooks."""
