"""The parameter editor of Palimpsest: edits become low-rank updates, and those become adapters."""
