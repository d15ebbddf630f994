"""Pure rules: messages, consent, timing, retry, tokens. No I/O, no clock."""
