"""Local stand-ins for the providers: they speak the real wire, and what they take ends in an inbox page.

The mail catcher plays an SMTP relay with everything behind it. A stand-in for another provider is a module beside
`catcher.py`: it speaks that provider's wire, keeps what it took where the pages find it, and reports back in that
provider's own way. Nothing here imports the service: the wire and the report are all that it knows of Notifier.
"""
