"""The tunes: fiddle tunes, engraved and played, and models compared on clips of the moving score and the sound."""
