"""The benchmarks behind `scripts/bench`: each starts what it measures, and nothing here is imported by the server."""
