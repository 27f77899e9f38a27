"""Compiles one pipeline or component of a Python file; skiff runs it with the interpreter that has kfp.

Arguments: the file, the function's name or nothing, where the package goes, where the verdict goes. The
verdict is one JSON object: {} for success, else "kind" and what there is to say. The file's own output
goes to the error stream, since the output is skiff's.
"""
import sys

# The working folder, which -c puts first, is no place of imports for a program, least of all for this one.
sys.path[:] = [p for p in sys.path if p]

import contextlib
import importlib.util
import json
import os
import traceback
import warnings


class Refused(Exception):
    def __init__(self, kind, **fields):
        super().__init__(kind)
        self.fields = dict(fields, kind=kind)


def import_sdk():
    try:
        import kfp
        from kfp import compiler
        return kfp, compiler
    except ImportError as e:
        missing = (getattr(e, 'name', None) or '').split('.')[0]
        if missing == 'kfp' and not importlib.util.find_spec('kfp'):
            raise Refused('no-kfp')
        raise Refused('broken-kfp', message='%s: %s' % (type(e).__name__, e))


def own_frames(error, source):
    """The frames in the user's own files: below the file's folder and in no environment."""
    folder = os.path.dirname(source) + os.sep
    frames = []
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.startswith('<'):
            continue  # this program, or the interpreter's own
        path = os.path.abspath(frame.filename)
        inside = path.startswith(folder) and 'site-packages' not in path[len(folder):].split(os.sep)
        if path == source or inside:
            frames.append({'file': path, 'line': frame.lineno or 0, 'function': frame.name, 'text': frame.line or ''})
    return frames


def describe(error, source):
    frames = own_frames(error, source)
    message = str(error).strip()
    if isinstance(error, SyntaxError):
        frames = [{'file': os.path.abspath(error.filename or source), 'line': error.lineno or 0, 'function': '',
                   'text': (error.text or '').strip()}]
        message = error.msg
    if isinstance(error, ImportError):
        name = getattr(error, 'name', None) or ''
        top = name.split('.')[0]
        if top == 'kfp' and 'kubernetes' in (name + message):
            raise Refused('no-module', module='kfp.kubernetes', frames=frames, message=message)
        with contextlib.suppress(ImportError, ValueError, AttributeError):
            if isinstance(error, ModuleNotFoundError) and top and importlib.util.find_spec(top) is None:
                raise Refused('no-module', module=top, frames=frames, message=message)
    if isinstance(error, SystemExit):
        message = 'the file ended the interpreter (exit %s)' % (error.code,)
    raise Refused('error', type=type(error).__name__, message=message, frames=frames)


def load(source):
    # As for a program of its own, the file's folder comes first among the places of imports.
    sys.path.insert(0, os.path.dirname(source))
    name = os.path.splitext(os.path.basename(source))[0]
    if not name.isidentifier() or name in sys.modules or name in getattr(sys, 'stdlib_module_names', ()):
        name = 'skiff_pipeline_file'
    spec = importlib.util.spec_from_file_location(name, source)
    module = importlib.util.module_from_spec(spec)
    # The SDK reads components' source through inspect, which looks modules up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as e:  # also SystemExit, which a file may raise
        if isinstance(e, KeyboardInterrupt):
            raise
        describe(e, source)
    return module


def kind_of(value):
    """'pipeline' or 'component' for what the SDK's decorators make, by the SDK's own classes, else None."""
    names = [c.__name__ for c in type(value).__mro__ if c.__module__.split('.')[0] == 'kfp']
    if 'BaseComponent' not in names:
        return None
    return 'pipeline' if 'GraphComponent' in names else 'component'


def defined_here(value, module):
    function = getattr(value, 'pipeline_func', None) or getattr(value, 'python_func', None)
    return function is None or getattr(function, '__module__', module.__name__) == module.__name__


def choose(module, wanted):
    found = {'pipeline': {}, 'component': {}}
    for name, value in vars(module).items():
        kind = kind_of(value)
        if kind and defined_here(value, module) and value not in found[kind].values():
            found[kind][name] = value
    names = {'pipelines': list(found['pipeline']), 'components': list(found['component'])}
    if wanted:
        value = getattr(module, wanted, None)
        if value is None:
            raise Refused('no-function', **names)
        if not kind_of(value):
            raise Refused('not-a-pipeline', **names)
        return value
    for candidates in (found['pipeline'], found['component']):
        if len(candidates) == 1:
            return next(iter(candidates.values()))
        if candidates:
            raise Refused('several', **names)
    raise Refused('none')


def main(source, wanted, package, verdict):
    answer = {}
    try:
        kfp, compiler = import_sdk()
        answer['kfp'] = getattr(kfp, '__version__', '')
        value = choose(load(source), wanted)
        try:
            compiler.Compiler().compile(value, package)
        except Exception as e:
            describe(e, source)
    except Refused as e:
        answer.update(e.fields)
    with open(verdict, 'w') as f:
        json.dump(answer, f)


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    sys.dont_write_bytecode = True
    arguments, sys.argv = sys.argv[1:], [sys.argv[1]]
    with contextlib.redirect_stdout(sys.stderr):
        main(*arguments)
