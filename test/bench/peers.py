"""Runs one component that does nothing with kfp.local, again and again in one process.

Reads commands from standard input, one a line, and answers each with a line of JSON:

    compile FILE       writes the component's pipeline            {}
    docker FOLDER      runs it with DockerRunner                  {"seconds": 1.2}
    subprocess FOLDER  runs it with SubprocessRunner(use_venv=False)

FOLDER is the pipeline root. A failure answers {"error": "..."}.
"""
import json
import os
import sys
import time
import traceback

# kfp.local prints what its tasks print; the answers have a channel of their own.
answers = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)

from kfp import compiler, dsl, local  # noqa: E402


@dsl.component(base_image='skiffdev/python:3.11')
def noop():
    pass


def run(runner, folder):
    local.init(runner=runner, pipeline_root=folder, raise_on_error=True)
    begin = time.monotonic()
    noop()
    return {'seconds': time.monotonic() - begin}


for line in sys.stdin:
    command, _, argument = line.rstrip('\n').partition(' ')
    try:
        if command == 'compile':
            compiler.Compiler().compile(noop, argument)
            answer = {}
        elif command == 'docker':
            answer = run(local.DockerRunner(), argument)
        elif command == 'subprocess':
            answer = run(local.SubprocessRunner(use_venv=False), argument)
        else:
            answer = {'error': f'there is no command {command!r}'}
    except BaseException as failure:
        traceback.print_exc()
        answer = {'error': f'{type(failure).__name__}: {failure}'}
    print(json.dumps(answer), file=answers, flush=True)
