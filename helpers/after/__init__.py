"""Step 8: what is done with finished sessions."""
