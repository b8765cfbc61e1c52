"""Where real training faces come from, one module a layout."""
