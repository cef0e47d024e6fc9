"""One module per step of the day; the notebook calls them in order."""
