"""Edits as texts: requests, contexts, phrasings."""
