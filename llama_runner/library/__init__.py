"""The store as a library of models: listed, shown, verified, kept, removed, and freed of what nothing needs."""
