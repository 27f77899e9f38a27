"""Two pipelines in one file, run without compiling them first:

    skiff run examples/from-python/steps.py:greet -p name=you
    skiff run examples/from-python/steps.py:count
"""
from kfp import dsl


@dsl.container_component
def say(text: str, said: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image='python:3.11',
        command=['sh', '-c', 'mkdir -p "$(dirname "$1")"; echo "$0"; printf %s "$0" > "$1"', text, said],
    )


@dsl.pipeline
def greet(name: str = 'World') -> str:
    return say(text=f'Hello, {name}').outputs['said']


@dsl.pipeline
def count():
    with dsl.ParallelFor(['one', 'two', 'three']) as word:
        say(text=word)
