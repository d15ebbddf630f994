"""Email: how a mail is written down (`mime`), handed over (`smtp`), and what a relay's answer means (`replies`)."""
