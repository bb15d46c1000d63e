"""One module a topic of `sparsescope` verbs; each imports only typer until a verb runs."""
