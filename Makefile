# bin/test, bin/deploy and bin/lab are the commands of every day; this is for what takes longer.
.PHONY: bench bench-all

# A short version: one box, nothing to change, three rounds.
bench:
	bin/uv run --locked --quiet python -m benchmarks.compare --case no-op --pairs 3

# Everything that docs/performance.md tells; takes hours.
bench-all:
	bin/uv run --locked --quiet python -m benchmarks.compare --states --by-hand \
	    --boxes 1,5,20 --latency 0,20 --pairs 5
