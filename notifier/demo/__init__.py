"""The scenario of `run.py demo`: product code on one side, readers on the other, Notifier in between."""
