"""One package per feature; server/app.py is the only file that imports them all."""
