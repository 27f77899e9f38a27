"""Container components: the placeholder grammar, outputs written by programs, environment, exit codes."""
from typing import NamedTuple, Optional

from kfp import dsl
from kfp.dsl import ConcatPlaceholder, Dataset, IfPresentPlaceholder, Input, Output

# A Python image serves as the shell where a pipeline shall run as a process too; alpine's names are for
# what needs busybox.
IMAGE = 'python:3.11'


@dsl.container_component
def words(out: dsl.OutputPath(str), first: str, second: Optional[str] = None, third: Optional[str] = None):
    """Writes its arguments, one in brackets each."""
    return dsl.ContainerSpec(
        image=IMAGE,
        command=['sh', '-c', 'out=$0; printf "[%s]" "$@" > "$out"', out],
        args=[
            '--first',
            first,
            IfPresentPlaceholder(input_name='second', then=['--second', second]),
            IfPresentPlaceholder(input_name='third', then=['--third', third], else_=['--third', 'none', 'at all']),
        ],
    )


@dsl.pipeline(name='if-present')
def if_present(
    empty: Optional[str] = None,
) -> NamedTuple('Out', none=str, some=str, every=str, null=str):
    """Absent removes the element, a list splices; an input that was passed as null counts as absent."""
    none = words(first='1')
    some = words(first='1', third='3 3')
    every = words(first='1', second='', third='3')
    null = words(first='1', second=empty, third=empty)
    Out = NamedTuple('Out', [('none', str), ('some', str), ('every', str), ('null', str)])
    return Out(
        none=none.outputs['out'], some=some.outputs['out'], every=every.outputs['out'], null=null.outputs['out']
    )


@dsl.container_component
def concatenated(out: dsl.OutputPath(str), a: str, n: int, b: Optional[str] = None):
    return dsl.ContainerSpec(
        image=IMAGE,
        command=['sh', '-c', 'out=$0; printf "[%s]" "$@" > "$out"', out],
        args=[
            ConcatPlaceholder(['a=', a, ';n=', n]),
            ConcatPlaceholder(['<', ConcatPlaceholder([a, '-', a]), '>']),
            ConcatPlaceholder(['b', IfPresentPlaceholder(input_name='b', then=ConcatPlaceholder(['=', b]), else_='?')]),
            IfPresentPlaceholder(
                input_name='b', then=[ConcatPlaceholder(['one:', b]), ConcatPlaceholder(['two:', b])]
            ),
        ],
    )


@dsl.pipeline(name='concat')
def concat() -> NamedTuple('Out', without=str, given=str):
    without = concatenated(a='x "y"', n=5)
    given = concatenated(a='{"k": 1}', n=-1, b='z')
    Out = NamedTuple('Out', [('without', str), ('given', str)])
    return Out(without=without.outputs['out'], given=given.outputs['out'])


@dsl.container_component
def typed_outputs(
    i: dsl.OutputPath(int), f: dsl.OutputPath(float), b: dsl.OutputPath(bool), l: dsl.OutputPath(list), d: dsl.OutputPath(dict), s: dsl.OutputPath(str)
):
    """Every type of output as a program writes it: with a newline at the end, or without."""
    return dsl.ContainerSpec(
        image=IMAGE,
        command=[
            'sh',
            '-c',
            'echo 42 > "$0"; printf 2.50 > "$1"; echo true > "$2"; echo "[1, \\"two\\", {}]" > "$3"; '
            'printf "%s" "{\\"a\\": [1.5]}" > "$4"; printf " spaces \\n and a line " > "$5"',
            i,
            f,
            b,
            l,
            d,
            s,
        ],
    )


TypedOut = NamedTuple('TypedOut', i=int, f=float, b=bool, l=list, d=dict, s=str)


@dsl.pipeline(name='typed-output-files')
def typed_output_files() -> TypedOut:
    o = typed_outputs().outputs
    return TypedOut(i=o['i'], f=o['f'], b=o['b'], l=o['l'], d=o['d'], s=o['s'])


@dsl.container_component
def typed_inputs(out: dsl.OutputPath(str), i: int, f: float, whole: float, b: bool, l: list, d: dict, s: str):
    """How each type looks on a command line; JSON is parsed, since its white space is nobody's promise."""
    return dsl.ContainerSpec(
        image=IMAGE,
        command=[
            'python3',
            '-c',
            """
import json, sys
out, i, f, whole, b, l, d, s, mixed = sys.argv[1:]
with open(out, "w") as file:
    file.write("".join(f"[{v}]" for v in (i, f, whole, b, json.loads(l), json.loads(d), s, mixed)))
""",
            out,
        ],
        args=[i, f, whole, b, l, d, s, f'mixed:{i}/{s}/{b}'],
    )


@dsl.pipeline(name='typed-arguments')
def typed_arguments() -> str:
    return typed_inputs(
        i=1000000, f=0.1, whole=3.0, b=False, l=[1, 'a b'], d={'k': [True]}, s='$HOME `x` "q"'
    ).outputs['out']


@dsl.container_component
def write_artifact(text: str, out: Output[Dataset]):
    return dsl.ContainerSpec(image=IMAGE, command=['sh', '-c', 'printf "%s" "$0" > "$1"', text, out.path])


@dsl.container_component
def look_at(data: Input[Dataset], content: dsl.OutputPath(str), uri: dsl.OutputPath(str), again: Output[Dataset]):
    return dsl.ContainerSpec(
        image=IMAGE,
        command=[
            'sh',
            '-ec',
            'cat "$0" > "$1"; printf "%s" "$2" > "$3"; cp "$0" "$4"; test -n "$5"',
            data.path,
            content,
            data.uri,
            uri,
            again.path,
            again.uri,
        ],
    )


@dsl.pipeline(name='artifact-placeholders')
def artifact_placeholders() -> NamedTuple('Out', content=str, same=bool):
    """Paths and URIs of artifacts on a command line, in and out."""

    @dsl.component(base_image=IMAGE)
    def same_file(uri: str, data: Input[Dataset]) -> bool:
        """The URI that the program saw names the producing task, as the data's own does."""
        with open(data.path) as f:
            return f.read() == 'content' and 'write-artifact' in uri and 'look-at' in data.uri

    seen = look_at(data=write_artifact(text='content').outputs['out'])
    same = same_file(uri=seen.outputs['uri'], data=seen.outputs['again'])
    Out = NamedTuple('Out', [('content', str), ('same', bool)])
    return Out(content=seen.outputs['content'], same=same.output)


@dsl.component(base_image=IMAGE)
def with_metadata(out: Output[Dataset]):
    with open(out.path, 'w') as f:
        f.write('x')
    out.metadata.update({'text': 'some text', 'count': 3, 'ratio': 0.5, 'flag': True})


@dsl.container_component
def show_metadata(data: Input[Dataset], out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image=IMAGE,
        command=['sh', '-c', 'out=$0; printf "[%s]" "$@" > "$out"', out],
        args=[
            data.metadata['text'],
            data.metadata['count'],
            data.metadata['ratio'],
            data.metadata['flag'],
        ],
    )


@dsl.pipeline(name='metadata-placeholders')
def metadata_placeholders() -> str:
    return show_metadata(data=with_metadata().outputs['out']).outputs['out']


@dsl.container_component
def environment(out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image=IMAGE, command=['sh', '-c', 'printf "%s|%s|%s|%s" "$BASE" "$DERIVED" "$KEPT" "$UNKNOWN" > "$0"', out]
    )


@dsl.pipeline(name='environment')
def environment_pipeline() -> str:
    """Variables in order, one made of an earlier one, one escaped, one that names nothing."""
    task = environment()
    task.set_env_variable('BASE', '/data')
    task.set_env_variable('DERIVED', '$(BASE)/sub')
    task.set_env_variable('KEPT', '$$(BASE)')
    task.set_env_variable('UNKNOWN', '$(NO_SUCH_NAME)')
    return task.outputs['out']


@dsl.container_component
def exit_with(code: int):
    return dsl.ContainerSpec(
        image=IMAGE, command=['sh', '-c', 'echo to stdout; echo to stderr >&2; exit "$0"'], args=[code]
    )


@dsl.pipeline(name='exit-code')
def exit_code(code: int = 3):
    exit_with(code=code)


@dsl.container_component
def kill_itself():
    return dsl.ContainerSpec(image=IMAGE, command=['python3', '-c', 'import os; os.kill(os.getpid(), 9)'])


@dsl.pipeline(name='killed')
def killed():
    kill_itself()


@dsl.container_component
def leave_children(out: dsl.OutputPath(str)):
    """Ends while a child of its own still sleeps; the step is over all the same."""
    return dsl.ContainerSpec(image=IMAGE, command=['sh', '-c', 'sleep 600 & printf done > "$0"', out])


@dsl.pipeline(name='left-children')
def left_children() -> str:
    return leave_children().outputs['out']


@dsl.container_component
def no_such_program():
    return dsl.ContainerSpec(image=IMAGE, command=['/no/such/program', '--help'])


@dsl.pipeline(name='command-not-found')
def command_not_found():
    no_such_program()


@dsl.container_component
def no_such_image():
    return dsl.ContainerSpec(image='skiffdev/no-such-image:1', command=['true'])


@dsl.pipeline(name='image-not-found')
def image_not_found() -> str:
    """The step before it runs; the image fails its task when that becomes runnable, not the pipeline before."""
    before = write_artifact(text='before')
    no_such_image().after(before)

    @dsl.component(base_image=IMAGE)
    def read(data: Input[Dataset]) -> str:
        with open(data.path) as f:
            return f.read()

    return read(data=before.outputs['out']).output


@dsl.container_component
def shell_only(out: dsl.OutputPath(str)):
    """Needs busybox's shell, which knows double brackets."""
    return dsl.ContainerSpec(
        image='alpine', command=['sh', '-ec'], args=['[[ "$1" == "one" ]]; printf %s "$1" > "$0"', out, 'one']
    )


@dsl.pipeline(name='busybox-shell')
def busybox_shell() -> str:
    return shell_only().outputs['out']


@dsl.container_component
def with_jq(out: dsl.OutputPath(int)):
    return dsl.ContainerSpec(
        image='jetbrainsinfra/jq', command=['sh', '-c', 'echo "[1, 2, 3]" | jq add > "$0"'], args=[out]
    )


@dsl.pipeline(name='jq')
def jq() -> int:
    return with_jq().outputs['out']


@dsl.container_component
def entrypoint(out: dsl.OutputPath(str)):
    """No command: the image's entrypoint, of which there is none here, so the arguments are the command."""
    return dsl.ContainerSpec(image='alpine:3.23', args=['sh', '-c', 'printf "from args" > "$0"', out])


@dsl.pipeline(name='arguments-only')
def arguments_only() -> str:
    return entrypoint().outputs['out']


@dsl.container_component
def executor_input(got: dsl.OutputPath(str), text: str, data: Input[Dataset], out: Output[Dataset]):
    """The whole executor input as one argument; an output by the executor output file, which wins."""
    return dsl.ContainerSpec(
        image=IMAGE,
        command=[
            'python3',
            '-c',
            '''
import json, os, sys
i = json.loads(sys.argv[1])
a = i["inputs"]["artifacts"]["data"]["artifacts"][0]
o = i["outputs"]["artifacts"]["out"]["artifacts"][0]
assert a["type"]["schemaTitle"] == "system.Dataset", a
assert a["metadata"]["text"] == "some text", a
assert o["uri"] and o["type"]["schemaTitle"] == "system.Dataset", o
assert i["outputs"]["parameters"]["got"]["outputFile"] == sys.argv[3], i
result = i["outputs"]["outputFile"]
assert result == sys.argv[4], i
os.makedirs(os.path.dirname(result), exist_ok=True)
with open(sys.argv[3], "w") as f:
    f.write("from the parameter's file")
with open(sys.argv[2], "w") as f:
    f.write("out")
json.dump({
    "parameterValues": {"got": "got " + i["inputs"]["parameterValues"]["text"]},
    "artifacts": {"out": {"artifacts": [{"name": "out", "uri": o["uri"], "metadata": {"by": "hand"}}]}},
}, open(result, "w"))
''',
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
            out.path,
            got,
            dsl.PIPELINE_TASK_EXECUTOR_OUTPUT_PATH_PLACEHOLDER,
        ],
    )


@dsl.pipeline(name='executor-input')
def executor_input_pipeline() -> NamedTuple('Out', got=str, by=str):
    @dsl.component(base_image=IMAGE)
    def by_whom(data: Input[Dataset]) -> str:
        with open(data.path) as f:
            return f'{f.read()} by {data.metadata["by"]}'

    task = executor_input(text='text', data=with_metadata().outputs['out'])
    Out = NamedTuple('Out', [('got', str), ('by', str)])
    return Out(got=task.outputs['got'], by=by_whom(data=task.outputs['out']).output)


PIPELINES = {
    f'{pipeline.name.replace("-", "_")}.yaml': pipeline
    for pipeline in (
        if_present,
        concat,
        typed_output_files,
        typed_arguments,
        artifact_placeholders,
        metadata_placeholders,
        environment_pipeline,
        exit_code,
        killed,
        left_children,
        command_not_found,
        image_not_found,
        busybox_shell,
        jq,
        arguments_only,
        executor_input_pipeline,
    )
}
