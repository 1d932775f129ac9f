"""The command line: one command per thing a user does."""
