"""Speed of every op against what people use today: `python -m benchmarks --help`."""
