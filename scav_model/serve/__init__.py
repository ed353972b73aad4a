"""The page of a search index: `scav serve`.

run.py      the command: finds the index, loads its model, starts the server
app.py      HTTP: the page, and the JSON API under /api
guard.py    checks host, origin and token of requests; security headers
answers.py  the objects of the API
engine.py   searches and alignments of one index
uploads.py  uploaded queries
clip_files.py  media files of the clips, and pictures of them
workers.py  the processes that read media files
jobs.py     what these processes do
convert.py  files that browsers do not play, as mp4
static/     the page itself
"""
