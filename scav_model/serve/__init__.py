"""The page of a search index: `scav serve`.

run.py      the command: finds the index, loads its model, starts the server
app.py      HTTP: the page, and the JSON API under /api
guard.py    checks host, origin and token of requests; security headers
engine.py   searches, alignments, uploads and media of one index
jobs.py     what worker processes do with media files
convert.py  files that browsers do not play, as mp4
static/     the page itself
"""
