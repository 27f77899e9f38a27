"""What the scripts share: a client, small pipelines, and a record of what was called."""

import functools
import inspect
import os
import warnings

warnings.simplefilter("ignore")

import kfp
from kfp import compiler, dsl

HOST, TOKEN, FOLDER = os.environ["KFP_HOST"], os.environ["KFP_TOKEN"], os.environ["KFP_FOLDER"]


def client():
    return kfp.Client(host=HOST, existing_token=TOKEN)


@dsl.container_component
def say(word: str, out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image="python:3.11",
        command=["sh", "-c", 'mkdir -p "$(dirname "$1")" && printf "%s" "$0" > "$1" && echo "said $0"'],
        args=[word, out],
    )


@dsl.container_component
def obey():
    """Fails until it is tried again."""
    return dsl.ContainerSpec(image="python:3.11", command=["sh", "-c", 'test "$KFP_RETRY_INDEX" != 0'])


@dsl.container_component
def wait(seconds: int):
    return dsl.ContainerSpec(image="python:3.11", command=["sleep"], args=[seconds])


@dsl.pipeline(name="greet", description="says one word")
def greet(word: str = "hello"):
    say(word=word)


@dsl.pipeline(name="obedient")
def obedient(word: str = "first"):
    first = say(word=word).set_caching_options(False)
    obey().after(first).set_caching_options(False)


@dsl.pipeline(name="sleeper")
def sleeper(seconds: int = 600):
    wait(seconds=seconds)


def package(func, name=None):
    path = os.path.join(FOLDER, f"{name or func.name}.yaml")
    compiler.Compiler().compile(func, path)
    return path


def public(kind):
    """The public methods of a class, by introspection: a new one must be tried here too."""
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


class Recorder:
    """Notes which methods of an object were called."""

    def __init__(self, target):
        self.target, self.called = target, set()

    def __getattr__(self, name):
        value = getattr(self.target, name)
        if not callable(value):
            return value

        @functools.wraps(value)
        def call(*args, **kwargs):
            self.called.add(name)
            return value(*args, **kwargs)

        return call


def refused(status, call, *args, **kwargs):
    """The call must be refused with this HTTP status; returns the body."""
    import json

    import kfp_server_api

    try:
        answer = call(*args, **kwargs)
    except kfp_server_api.ApiException as error:
        assert error.status == status, f"{error.status} in place of {status}: {error.body}"
        body = json.loads(error.body)
        assert body["code"] and body["message"], body
        return body
    raise AssertionError(f"not refused: {answer}")
