"""Coverage-guided fuzzing of what reads a stranger's bytes: ``make fuzz``, and a short run in the tests."""
