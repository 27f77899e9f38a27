"""Parameters: types, defaults, optional inputs, values that are hard to carry, placeholders in values."""
from typing import NamedTuple, Optional

from kfp import dsl

IMAGE = 'python:3.11'


@dsl.component(base_image=IMAGE)
def say(text: str) -> str:
    print(text)
    return text


@dsl.component(base_image=IMAGE)
def all_types(
    i: int, f: float, s: str, b: bool, l: list, d: dict
) -> NamedTuple('Types', i=int, f=float, s=str, b=bool, l=list, d=dict, kinds=str):
    """Gives back what came in, and the Python type that each value arrived as."""
    kinds = ' '.join(type(v).__name__ for v in (i, f, s, b, l, d))
    Types = NamedTuple(
        'Types', [('i', int), ('f', float), ('s', str), ('b', bool), ('l', list), ('d', dict), ('kinds', str)]
    )
    return Types(i=i, f=f, s=s, b=b, l=l, d=d, kinds=kinds)


Types = NamedTuple('Types', i=int, f=float, s=str, b=bool, l=list, d=dict, kinds=str)


@dsl.pipeline(name='types')
def types(
    i: int = 42,
    f: float = 2.5,
    s: str = 'text',
    b: bool = True,
    l: list = [1, 'two', 3.5, [True]],
    d: dict = {'a': 1, 'b': {'c': [1, 2]}},
) -> Types:
    """Two components in a row, so that each type is an output, an input and a pipeline output."""
    first = all_types(i=i, f=f, s=s, b=b, l=l, d=d)
    o = first.outputs
    second = all_types(i=o['i'], f=o['f'], s=o['s'], b=o['b'], l=o['l'], d=o['d'])
    o = second.outputs
    return Types(i=o['i'], f=o['f'], s=o['s'], b=o['b'], l=o['l'], d=o['d'], kinds=o['kinds'])


@dsl.pipeline(name='constants')
def constants() -> Types:
    """The same with constants in place of inputs."""
    first = all_types(
        i=-7, f=1e-7, s='', b=False, l=[], d={'deep': [{'x': 1.5}, []], 'unicode': 'ß€ – \U0001f6f6', 'empty': {}}
    )
    o = first.outputs
    return Types(i=o['i'], f=o['f'], s=o['s'], b=o['b'], l=o['l'], d=o['d'], kinds=o['kinds'])


@dsl.pipeline(name='hard-strings')
def hard_strings(text: str) -> NamedTuple('Out', same=str, inside=str, length=int):
    """Quotes, newlines, shell and JSON syntax, in a value of its own and inside an f-string."""

    @dsl.component(base_image=IMAGE)
    def length_of(text: str) -> int:
        return len(text)

    same = say(text=text)
    inside = say(text=f'<{same.output}> & "{same.output}"')
    length = length_of(text=same.output)
    Out = NamedTuple('Out', [('same', str), ('inside', str), ('length', int)])
    return Out(same=same.output, inside=inside.output, length=length.output)


@dsl.pipeline(name='large-value')
def large_value(kilobytes: int = 96) -> NamedTuple('Out', length=int, digest=str):
    """A parameter near the longest that one argument of a program may have, from one step to the next."""

    @dsl.component(base_image=IMAGE)
    def large(kilobytes: int) -> str:
        return ('0123456789abcdef' * 64) * kilobytes

    @dsl.component(base_image=IMAGE)
    def measure(text: str) -> NamedTuple('Out', length=int, digest=str):
        import hashlib

        Out = NamedTuple('Out', [('length', int), ('digest', str)])
        return Out(length=len(text), digest=hashlib.sha256(text.encode()).hexdigest())

    made = large(kilobytes=kilobytes)
    out = measure(text=made.output)
    Out = NamedTuple('Out', [('length', int), ('digest', str)])
    return Out(length=out.outputs['length'], digest=out.outputs['digest'])


@dsl.component(base_image=IMAGE)
def describe(
    s: Optional[str] = 'default',
    i: Optional[int] = 5,
    b: Optional[bool] = True,
    l: Optional[list] = None,
    n: Optional[str] = None,
) -> str:
    return ' '.join(repr(v) for v in (s, i, b, l, n))


@dsl.pipeline(name='component-defaults')
def component_defaults() -> NamedTuple('Out', none=str, some=str, falsy=str):
    """Defaults of the component, some of them overridden, with values that are false."""
    none = describe()
    some = describe(s='given', l=['x'])
    falsy = describe(s='', i=0, b=False, l=[])
    Out = NamedTuple('Out', [('none', str), ('some', str), ('falsy', str)])
    return Out(none=none.output, some=some.output, falsy=falsy.output)


@dsl.pipeline(name='optional-child')
def optional_child(
    s: Optional[str] = 'child', i: Optional[int] = 7, b: Optional[bool] = False, n: Optional[str] = None
) -> str:
    return describe(s=s, i=i, b=b, n=n).output


@dsl.pipeline(name='optional-middle')
def optional_middle(s: Optional[str] = None, i: Optional[int] = None) -> str:
    return optional_child(s=s, i=i).output


@dsl.pipeline(name='optional-nested')
def optional_nested(
    s: Optional[str] = None, i: Optional[int] = None
) -> NamedTuple('Out', child=str, passed=str, middle=str, through=str):
    """Optional inputs through nested pipelines: the child's defaults where nothing was passed, None where
    an absent input was."""
    child = optional_child()
    passed = optional_child(s='parent', i=0, b=True)
    middle = optional_middle()
    through = optional_middle(s=s, i=i)
    Out = NamedTuple('Out', [('child', str), ('passed', str), ('middle', str), ('through', str)])
    return Out(child=child.output, passed=passed.output, middle=middle.output, through=through.output)


@dsl.pipeline(name='required-inputs')
def required_inputs(text: str, count: int, ratio: float, flag: bool, items: list, options: dict) -> str:
    """Every input must be given, with its type."""

    @dsl.component(base_image=IMAGE)
    def show(text: str, count: int, ratio: float, flag: bool, items: list, options: dict) -> str:
        import json

        return json.dumps([text, count, ratio, flag, items, options], sort_keys=True)

    return show(text=text, count=count, ratio=ratio, flag=flag, items=items, options=options).output


@dsl.pipeline(name='f-strings')
def f_strings(who: str = 'ann', count: int = 3, ratio: float = 0.25, flag: bool = True) -> str:
    """Values of every scalar type inside a constant, beside an output, twice the same."""
    first = say(text=f'{who}')
    return say(text=f'{who} {count} {ratio} {flag} {first.output} {who}').output


@dsl.pipeline(name='f-strings-of-json')
def f_strings_of_json(items: list = [1, 2], options: dict = {'a': 'b'}) -> str:
    """Lists and structs inside a constant become JSON."""

    @dsl.component(base_image=IMAGE)
    def reparse(text: str) -> str:
        import json

        return json.dumps(json.loads(text), sort_keys=True)

    return reparse(text=f'{{"items": {items}, "options": {options}}}').output


@dsl.component(base_image=IMAGE)
def check_placeholders(
    job_name: str,
    job_resource_name: str,
    job_id: str,
    task_name: str,
    task_id: str,
    root: str,
    created: str,
    scheduled: str,
    mixed: str,
) -> str:
    """Fails unless every placeholder became what it stands for."""
    import datetime

    values = dict(
        job_name=job_name,
        job_resource_name=job_resource_name,
        job_id=job_id,
        task_name=task_name,
        task_id=task_id,
        root=root,
        created=created,
        scheduled=scheduled,
        mixed=mixed,
    )
    print(values)
    for name, value in values.items():
        assert value and '{{' not in value, (name, value)
    assert job_resource_name.startswith('placeholders-'), job_resource_name
    assert task_name == 'check-placeholders', task_name
    assert '://' in root or root.startswith('/'), root
    assert mixed == f'{job_id}/{task_name}', mixed
    for time in (created, scheduled):
        datetime.datetime.fromisoformat(time.replace('Z', '+00:00'))
    return task_name


@dsl.pipeline(name='placeholders')
def placeholders() -> str:
    return check_placeholders(
        job_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        job_resource_name=dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
        job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        task_name=dsl.PIPELINE_TASK_NAME_PLACEHOLDER,
        task_id=dsl.PIPELINE_TASK_ID_PLACEHOLDER,
        root=dsl.PIPELINE_ROOT_PLACEHOLDER,
        created=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
        scheduled=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER,
        mixed=f'{dsl.PIPELINE_JOB_ID_PLACEHOLDER}/{dsl.PIPELINE_TASK_NAME_PLACEHOLDER}',
    ).output


@dsl.pipeline(name='missing-output')
def missing_output() -> str:
    """The component ends well without its declared output: the task fails."""

    @dsl.container_component
    def nothing(out: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image=IMAGE, command=['sh', '-c', 'echo nothing for "$0"'], args=[out])

    return nothing().outputs['out']


@dsl.pipeline(name='wrong-output-type')
def wrong_output_type() -> int:
    """The declared output is a number, what was written is not: the task fails."""

    @dsl.container_component
    def words(out: dsl.OutputPath(int)):
        return dsl.ContainerSpec(image=IMAGE, command=['sh', '-c', 'echo not a number > "$0"'], args=[out])

    return words().outputs['out']


@dsl.component(base_image=IMAGE)
def bare(a: int, b: int = 2) -> int:
    return a * b


PIPELINES = {
    f'{pipeline.name.replace("-", "_")}.yaml': pipeline
    for pipeline in (
        types,
        constants,
        hard_strings,
        large_value,
        component_defaults,
        optional_nested,
        required_inputs,
        f_strings,
        f_strings_of_json,
        placeholders,
        missing_output,
        wrong_output_type,
    )
}
# A component compiled by itself is a pipeline of one task.
PIPELINES['bare_component.yaml'] = bare
