"""The long run of test_faults.py: `python -m tests.index.faults --kills 100 --mutations 1000`."""

import argparse
from collections import Counter

from tests.index.survival import kill, mutate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="times that a writer is killed")
    parser.add_argument("--mutations", type=int, default=0, help="times that a file is damaged")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the damage")
    asked = parser.parse_args()
    if asked.kills:
        print(dict(kill(asked.kills, asked.seed)))
    if asked.mutations:
        results = list(mutate(asked.mutations, asked.seed))
        for result in results:
            if result[3].startswith("WRONG"):
                print(result)
        print(len(results), dict(Counter(result[3].split(":")[0] for result in results)))
        print(dict(Counter(result[2] for result in results)))


if __name__ == "__main__":
    main()
