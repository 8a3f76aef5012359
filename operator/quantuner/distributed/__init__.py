"""Ranks, their messages, the journal's file and the launcher's supervisor. Knows trials only as numbers."""
