"""Going from one configuration to the next without rewriting a graph."""
