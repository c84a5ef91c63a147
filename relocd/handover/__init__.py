"""The hand-over: who owns the domain, step by step. Pure state machines, events in, effects out."""
