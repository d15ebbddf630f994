"""Text messages: what they take (`segments`), how they are handed over (`twilio`), what people answer (`keywords`)."""
