"""Step 7, the annex: variants of the model, compared."""
