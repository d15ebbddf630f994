"""Notifier: sends a product's messages by email, SMS and push, and honours what people want."""
