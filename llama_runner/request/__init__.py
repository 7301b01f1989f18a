"""One request: options, the source they name, the graph of steps, and where its results are."""
