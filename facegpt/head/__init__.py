"""The head room: face parameters, head model, head files, built-in head."""
