"""Channels: they carry content to addresses and know nothing of people, consent, SQL or Redis."""
