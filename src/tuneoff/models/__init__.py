"""Open models: finding, loading and quantizing them."""
