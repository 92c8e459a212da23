"""The plumbing of Lectern; knows no feature (except app.py and demo.py)."""
