"""Which tokens may come next: one file a filter."""
