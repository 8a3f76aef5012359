"""What may be tuned: capability of a model's ops × the user's constraints, as plain data without torch."""
