"""Does an outgoing relocation come to its end, and what is done about it: terms, verdicts and shares of the link."""
