"""Processes that train the trials of a search: a pool of Ray actors, and what each of them does."""
