"""Asks every op that has CUDA sources for values and gradients, with the threads in each order, which must not matter;
run by test_simt.py in the shim.
"""

import torch

from tests.ops.cases import CORE
from tests.ops.inputs import Shape, answer, sequences
from tests.simt.plugin import settings

# Several panels, warps and groups, past the end of a ring; several tiles where the scratch is small.
SHAPES = [Shape(b1=3, b2=4, n=70, m=40, d=5), Shape(b1=2, b2=2, n=300, m=150, d=3)]
# As numbered, backwards, shuffled.
ORDERS = (0, 1, 2)


def main() -> None:
    for case in CORE:
        if case.metric in ("interpolated_euclidean", "interpolated_cosine"):
            continue
        for shape in SHAPES:
            for paired in (False, True) if shape.b1 == shape.b2 else (False,):
                answers = []
                for order in ORDERS:
                    with settings(ORDER=order):
                        answers.append(answer(case.kernel, sequences(shape, torch.float32), paired))
                for other in answers[1:]:
                    for first, part in zip(answers[0], other, strict=True):
                        assert torch.equal(first, part), (case, shape, paired)


if __name__ == "__main__":
    main()
