"""The operator: events wake a key, one reconciler observes, decides and acts, one writer tells the status."""
