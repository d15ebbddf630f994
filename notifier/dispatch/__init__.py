"""Use cases: each takes the App and brings something about. They do not import one another."""
