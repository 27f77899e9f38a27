"""The smallest pipeline: one step, one parameter, one output."""
from kfp import dsl


@dsl.component(base_image='python:3.11')
def say_hello(name: str) -> str:
    greeting = f'Hello, {name}!'
    print(greeting)
    return greeting


@dsl.pipeline(name='hello')
def hello(recipient: str = 'World') -> str:
    return say_hello(name=recipient).output


PIPELINES = {'pipeline.yaml': hello}
