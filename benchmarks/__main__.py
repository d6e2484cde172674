"""python -m benchmarks NAME [--json FILE]: measure, print a table, exit 1 if a must is missed."""

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.result import Result

NAMES = {
    "world": "seconds to make a million apps and a day of a million impressions",
    "main-job": "the main job at full scale: wall time, memory, recall, lift",
    "statistics": "cells described a second, and whether memory grows with the rows",
    "decoding": "rows of training input a second, beside TensorFlow's parsing of examples",
    "training-speed": "rows a second of both models in our trainer, beside plain Keras scripts",
    "warm-start": "what it saves to begin where yesterday's model ended, and what it is worth",
    "rankers": "wide, deep, and wide and deep: AUC, and installs in the world",
    "off-policy": "what a policy would have earned, told from another's log, beside the truth",
    "evaluation": "rows evaluated a second; how often intervals hold the truth",
    "gate": "twenty good bundles and twenty bad ones: which come to serve",
    "retrieval": "recall@100 against CPU a query, beside hnswlib, faiss, usearch, voyager, tfrs",
    "serving": "latency at set rates, HTTP and gRPC; queries a second within 50 ms; a plain server",
    "isolation": "latency while a new version loads, beside what it is when none does",
    "swaps": "versions swapped and rolled back under load: does any request notice?",
    "overload": "five times what the server can do: what is still done, and how soon it recovers",
    "kills": "workers killed under load: who notices, and is the log whole?",
    "experiment": "what removing a skew is worth in installs, in eleven worlds; each guard's price",
    "resume": "every stage killed and run again: the same bytes?",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="\n".join(f"{name:<14} {what}" for name, what in NAMES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=NAMES)
    parser.add_argument(
        "--json", type=Path, help="also write the result, and its picture if any, here"
    )
    arguments = parser.parse_args()
    module = importlib.import_module(f"benchmarks.{arguments.name.replace('-', '_')}")
    result: Result = module.measure()
    result.show()
    if arguments.json:
        result.write(arguments.json)
    sys.exit(0 if result.all_met else 1)


if __name__ == "__main__":
    main()
