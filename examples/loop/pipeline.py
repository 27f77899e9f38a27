"""Run one step for each item of a list, two at a time, and collect what came out."""
from typing import List

from kfp import dsl


@dsl.component(base_image='python:3.11')
def square(number: int) -> int:
    print(f'{number} squared is {number * number}')
    return number * number


@dsl.component(base_image='python:3.11')
def add_up(numbers: List[int]) -> int:
    return sum(numbers)


@dsl.pipeline(name='loop')
def loop(numbers: List[int] = [1, 2, 3, 4]) -> int:
    with dsl.ParallelFor(items=numbers, parallelism=2) as number:
        squared = square(number=number)
    return add_up(numbers=dsl.Collected(squared.output)).output


PIPELINES = {'pipeline.yaml': loop}
