"""The demo: clips rendered here, and the four models trained and compared on them."""
