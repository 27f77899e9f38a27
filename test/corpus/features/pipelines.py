"""What goes with a task: caching, resources, names, workspace, notebooks, task configuration, time limits."""
import pathlib
from typing import Dict, List, NamedTuple

from kfp import dsl, kubernetes
from kfp.dsl import Dataset, Input, Output

IMAGE = 'python:3.11'
HERE = pathlib.Path(__file__).parent


@dsl.component(base_image=IMAGE)
def say(text: str) -> str:
    print(text)
    return text


@dsl.component(base_image=IMAGE)
def stamp(text: str, out: Output[Dataset]) -> str:
    """Differs from run to run, so that what came from the cache can be told."""
    import uuid

    value = f'{text} {uuid.uuid4()}'
    with open(out.path, 'w') as f:
        f.write(value)
    return value


@dsl.component(base_image=IMAGE)
def read(data: Input[Dataset]) -> str:
    with open(data.path) as f:
        return f.read()


# Caching


@dsl.pipeline(name='caching')
def caching(text: str = 'same') -> bool:
    """A step whose result is kept, its reader, and a step that must always run."""

    @dsl.component(base_image=IMAGE)
    def same(a: str, b: str) -> bool:
        return a == b

    kept = stamp(text=text)
    readers = read(data=kept.outputs['out'])
    never = stamp(text=text).set_caching_options(enable_caching=False)
    read(data=never.outputs['out'])
    return same(a=kept.outputs['Output'], b=readers.output).output


@dsl.pipeline(name='caching-key')
def caching_key(text: str = 'same') -> str:
    """A key of one's own: the result is found again even where the inputs differ."""
    kept = stamp(text=text).set_caching_options(enable_caching=True, cache_key='fixed')
    say(text=kept.outputs['Output'])
    return kept.outputs['Output']


@dsl.pipeline(name='caching-failure')
def caching_failure():
    """A failed step is never taken from the cache."""

    @dsl.component(base_image=IMAGE)
    def fail():
        raise SystemExit('always')

    fail()


# Names, environment, resources


@dsl.pipeline(name='display-names', display_name='Names for people', description='Two tasks with names of their own.')
def display_names() -> str:
    first = say(text='first').set_display_name('The first one')
    return say(text=first.output).set_display_name('The second one, after the first').output


@dsl.pipeline(name='environment-variables')
def environment_variables() -> str:
    @dsl.component(base_image=IMAGE)
    def show() -> str:
        import os

        return f'{os.environ["PLAIN"]}|{os.environ["QUOTED"]}|{os.environ["EMPTY"]}'

    task = show()
    task.set_env_variable('PLAIN', 'value')
    task.set_env_variable('QUOTED', 'a "b" $c\nd')
    task.set_env_variable('EMPTY', '')
    return task.output


@dsl.pipeline(name='resources')
def resources() -> str:
    """Small requests and limits that any machine grants."""
    task = say(text='small')
    task.set_cpu_request('100m').set_cpu_limit('1').set_memory_request('64Mi').set_memory_limit('512Mi')
    return task.output


@dsl.pipeline(name='resources-from-inputs')
def resources_from_inputs(cpu: str = '500m', memory: str = '256Mi') -> str:
    task = say(text='from inputs')
    task.set_cpu_limit(cpu)
    task.set_memory_limit(memory)
    return task.output


@dsl.pipeline(name='large-machine')
def large_machine() -> str:
    """More than a small machine has; runs on a declared one."""
    task = say(text='large')
    task.set_cpu_request('48').set_memory_request('192G')
    return task.output


@dsl.pipeline(name='too-large')
def too_large() -> str:
    """More than any machine has: refused with the numbers."""
    task = say(text='too large')
    task.set_cpu_request('100000')
    return task.output


@dsl.pipeline(name='gpu')
def gpu() -> str:
    """One task with two devices, one without any; each says how many it was given."""

    @dsl.component(base_image=IMAGE)
    def visible(want: int) -> int:
        import os

        names = [v for v in os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if v and v != '-1']
        nvidia = [v for v in os.environ.get('NVIDIA_VISIBLE_DEVICES', '').split(',') if v and v not in ('void', 'none')]
        return len(names) or len(nvidia)

    @dsl.component(base_image=IMAGE)
    def both(a: int, b: int) -> str:
        return f'{a} and {b}'

    two = visible(want=2).set_accelerator_type('nvidia.com/gpu').set_accelerator_limit(2)
    none = visible(want=0)
    return both(a=two.output, b=none.output).output


@dsl.pipeline(name='other-accelerator')
def other_accelerator() -> str:
    """A device type that only a cloud knows; on a declared machine it means any GPU."""
    return say(text='ran').set_accelerator_type('NVIDIA_TESLA_K80').set_accelerator_limit(1).output


# Workspace


@dsl.pipeline(
    name='workspace', pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size='100Mi'))
)
def workspace() -> NamedTuple('Out', text=str, names=List[str]):
    """Files that stay between steps of one run, outside any artifact."""

    @dsl.component(base_image=IMAGE)
    def put(workspace: str, name: str) -> str:
        import os

        os.makedirs(os.path.join(workspace, 'sub'), exist_ok=True)
        with open(os.path.join(workspace, 'sub', name), 'w') as f:
            f.write(name)
        return workspace

    @dsl.component(base_image=IMAGE)
    def get(path: str) -> str:
        with open(path) as f:
            return f.read()

    @dsl.component(base_image=IMAGE)
    def names(folder: str) -> List[str]:
        import os

        return sorted(os.listdir(folder))

    one = put(workspace=dsl.WORKSPACE_PATH_PLACEHOLDER, name='one')
    two = put(workspace=dsl.WORKSPACE_PATH_PLACEHOLDER, name='two').after(one)
    text = get(path=f'{dsl.WORKSPACE_PATH_PLACEHOLDER}/sub/one').after(two)
    found = names(folder=f'{dsl.WORKSPACE_PATH_PLACEHOLDER}/sub').after(two)
    Out = NamedTuple('Out', [('text', str), ('names', List[str])])
    return Out(text=text.output, names=found.output)


@dsl.component(base_image=IMAGE)
def write_set(text: str, data: Output[Dataset]):
    import os

    os.makedirs(os.path.join(data.path, 'deep'))
    with open(os.path.join(data.path, 'deep', 'text'), 'w') as f:
        f.write(text)


@dsl.component(base_image=IMAGE)
def uri_of_set(data: Input[Dataset]) -> str:
    return data.uri


@dsl.component(base_image=IMAGE)
def read_set(data: Input[Dataset]) -> Dict[str, str]:
    """What is read, and from where: the folders before the bucket."""
    import os

    with open(os.path.join(data.path, 'deep', 'text')) as f:
        return {'text': f.read(), 'at': data.path.split('mlpipeline')[0], 'note': data.metadata['note']}


@dsl.component(base_image=IMAGE)
def append_to_set(data: Input[Dataset], text: str):
    import os

    with open(os.path.join(data.path, 'deep', 'text'), 'a') as f:
        f.write(text)


@dsl.container_component
def show_set(data: Input[Dataset], text: dsl.OutputPath(str)):
    script = 'mkdir -p "$(dirname "$1")" && cat "$0"/deep/* > "$1"'
    return dsl.ContainerSpec(image='alpine', command=['sh', '-c', script], args=[data.path, text])


@dsl.pipeline(
    name='import-to-workspace', pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size='100Mi'))
)
def import_to_workspace(text: str = 'as imported') -> NamedTuple('Out', copy=Dict[str, str], original=Dict[str, str], shown=str):
    """A copy that steps may change, beside the original, which they may not; two importers share it."""
    uri = uri_of_set(data=write_set(text=text).output).output
    note = {'note': 'a note'}
    data = dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata=note, download_to_workspace=True)
    changed = append_to_set(data=data.output, text=', and changed')
    again = dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata=note, download_to_workspace=True).after(changed)
    original = dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata=note).after(changed)
    Out = NamedTuple('Out', [('copy', Dict[str, str]), ('original', Dict[str, str]), ('shown', str)])
    return Out(
        copy=read_set(data=again.output).output,
        original=read_set(data=original.output).output,
        shown=show_set(data=data.output).after(changed).outputs['text'],
    )


@dsl.pipeline(
    name='import-nothing-to-workspace', pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size='1Mi'))
)
def import_nothing_to_workspace(uri: str = 'minio://mlpipeline/no/such/thing') -> Dict[str, str]:
    """What is not there cannot be copied: the importer fails, and says so."""
    data = dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata={'note': ''}, download_to_workspace=True)
    return read_set(data=data.output).output


# Notebooks


@dsl.notebook_component(notebook_path=str(HERE / 'parameters.ipynb'), base_image=IMAGE)
def run_notebook(text: str, times: int) -> str:
    dsl.run_notebook(text=text, times=times)
    with open('/tmp/skiff-notebook-result.txt') as f:
        return f.read()


@dsl.pipeline(name='notebook')
def notebook(text: str = 'ab', times: int = 3) -> str:
    return run_notebook(text=text, times=times).output


# Task configuration


@dsl.component(
    base_image=IMAGE,
    task_config_passthroughs=[
        dsl.TaskConfigField.RESOURCES,
        dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True),
    ],
)
def configured(task_config: dsl.TaskConfig) -> dict:
    """What would be handed to a workload that this task starts; the environment also applies to itself."""
    import os

    return {'resources': task_config.resources, 'env': task_config.env, 'own': os.environ.get('NAME', '')}


@dsl.pipeline(name='task-config')
def task_config() -> dict:
    task = configured()
    task.set_env_variable('NAME', 'value')
    task.set_cpu_request('100m').set_cpu_limit('200m').set_memory_request('100Mi').set_memory_limit('200Mi')
    return task.output


# Packages


@dsl.component(base_image=IMAGE, packages_to_install=['yapf'])
def format_code(code: str) -> str:
    from yapf.yapflib.yapf_api import FormatCode

    return FormatCode(code)[0].strip()


@dsl.pipeline(name='packages')
def packages() -> str:
    return format_code(code='x   =    1').output


@dsl.component(base_image=IMAGE, packages_to_install=['no-such-package-by-this-name==0.0.0'])
def not_installable() -> str:
    return 'never'


@dsl.pipeline(name='packages-not-found')
def packages_not_found() -> str:
    return not_installable().output


@dsl.component(base_image=IMAGE, use_venv=True)
def in_venv() -> bool:
    import sys

    return sys.prefix != sys.base_prefix


@dsl.pipeline(name='own-venv')
def own_venv() -> bool:
    return in_venv().output


# Time limits


@dsl.component(base_image=IMAGE)
def nap(seconds: float) -> str:
    import time

    time.sleep(seconds)
    return 'rested'


@dsl.pipeline(name='task-timeout')
def task_timeout(seconds: float = 120):
    """The platform's limit on one task: fifteen seconds."""
    task = nap(seconds=seconds)
    kubernetes.set_timeout(task, 15)


@dsl.pipeline(name='run-timeout', pipeline_config=dsl.PipelineConfig(active_deadline_seconds=3))
def run_timeout(seconds: float = 120) -> str:
    """The limit on the whole run: three seconds."""
    return nap(seconds=seconds).output


@dsl.pipeline(name='secret')
def secret() -> str:
    """A platform field that needs an object which does not exist: refused with its name, or honoured."""
    task = say(text='secret')
    kubernetes.use_secret_as_env(task, secret_name='no-such-secret', secret_key_to_env={'key': 'VALUE'})
    return task.output


PIPELINES = {
    f'{pipeline.name.replace("-", "_")}.yaml': pipeline
    for pipeline in (
        caching,
        caching_key,
        caching_failure,
        display_names,
        environment_variables,
        resources,
        resources_from_inputs,
        large_machine,
        too_large,
        gpu,
        other_accelerator,
        workspace,
        import_to_workspace,
        import_nothing_to_workspace,
        notebook,
        task_config,
        packages,
        packages_not_found,
        own_venv,
        task_timeout,
        run_timeout,
        secret,
    )
}
