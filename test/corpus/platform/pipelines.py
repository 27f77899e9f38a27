"""What the platform document asks for: secrets, config maps, volumes, pod settings, other containers."""
from typing import Dict, List, NamedTuple, Optional

from kfp import dsl, kubernetes

IMAGE = 'python:3.11'


@dsl.component(base_image=IMAGE)
def variables(names: List[str]) -> Dict[str, str]:
    """The variables of these names that are set."""
    import os

    return {name: os.environ[name] for name in names if name in os.environ}


@dsl.component(base_image=IMAGE)
def files(folders: List[str]) -> Dict[str, str]:
    """All files of these folders, by path; of a folder that is not there, nothing."""
    import os

    found = {}
    for folder in folders:
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            with open(os.path.join(folder, name)) as f:
                found[os.path.join(folder, name)] = f.read()
    return found


@dsl.component(base_image=IMAGE)
def write(path: str, text: str) -> str:
    with open(path, 'w') as f:
        f.write(text)
    return text


@dsl.component(base_image=IMAGE)
def read(path: str) -> str:
    with open(path) as f:
        return f.read()


@dsl.component(base_image=IMAGE)
def say(text: str) -> str:
    print(text)
    return text


def add(task, **settings):
    """Settings that the SDK has no function for."""
    task.platform_config.setdefault('kubernetes', {}).update(settings)


# Secrets and config maps


@dsl.pipeline(name='secret-env')
def secret_env(name: str = 'test-secret-1', gone: Optional[str] = None) -> Dict[str, str]:
    """Named plainly, by an input and by an output; what is optional and not there is left out."""
    named = say(text='test-secret-3')
    task = variables(names=['PLAIN', 'INPUT', 'OUTPUT', 'MISSING', 'NULL', 'KEYLESS'])
    kubernetes.use_secret_as_env(task, secret_name='test-secret-2', secret_key_to_env={'password': 'PLAIN'})
    kubernetes.use_secret_as_env(task, secret_name=name, secret_key_to_env={'username': 'INPUT'})
    kubernetes.use_secret_as_env(task, secret_name=named.output, secret_key_to_env={'password': 'OUTPUT'})
    kubernetes.use_secret_as_env(task, secret_name='none', secret_key_to_env={'x': 'MISSING'}, optional=True)
    kubernetes.use_secret_as_env(task, secret_name='test-secret-1', secret_key_to_env={'x': 'KEYLESS'}, optional=True)
    kubernetes.use_secret_as_env(task, secret_name=gone, secret_key_to_env={'x': 'NULL'}, optional=True)
    return task.output


@dsl.pipeline(name='secret-volume')
def secret_volume(name: str = 'test-secret-1', gone: Optional[str] = None) -> Dict[str, str]:
    task = files(folders=['/mnt/plain', '/mnt/input', '/mnt/missing', '/mnt/null'])
    kubernetes.use_secret_as_volume(task, secret_name='test-secret-2', mount_path='/mnt/plain')
    kubernetes.use_secret_as_volume(task, secret_name=name, mount_path='/mnt/input')
    kubernetes.use_secret_as_volume(task, secret_name='none', mount_path='/mnt/missing', optional=True)
    kubernetes.use_secret_as_volume(task, secret_name=gone, mount_path='/mnt/null', optional=True)
    return task.output


@dsl.pipeline(name='config-map')
def config_map(name: str = 'my-cm') -> NamedTuple('Out', env=Dict[str, str], files=Dict[str, str]):
    env = variables(names=['KEY', 'MISSING'])
    kubernetes.use_config_map_as_env(env, config_map_name=name, config_map_key_to_env={'key': 'KEY'})
    kubernetes.use_config_map_as_env(env, config_map_name='none', config_map_key_to_env={'x': 'MISSING'}, optional=True)
    volume = files(folders=['/mnt/config', '/mnt/missing'])
    kubernetes.use_config_map_as_volume(volume, config_map_name=name, mount_path='/mnt/config')
    kubernetes.use_config_map_as_volume(volume, config_map_name='none', mount_path='/mnt/missing', optional=True)
    Out = NamedTuple('Out', [('env', Dict[str, str]), ('files', Dict[str, str])])
    return Out(env=env.output, files=volume.output)


@dsl.pipeline(name='missing-config-map')
def missing_config_map() -> Dict[str, str]:
    task = files(folders=['/mnt'])
    kubernetes.use_config_map_as_volume(task, config_map_name='no-such-map', mount_path='/mnt')
    return task.output


# Volumes


@dsl.pipeline(name='claim')
def claim() -> NamedTuple('Out', whole=Dict[str, str], part=str):
    """A claim from its making to its end; one step sees all of it, another a folder in it."""
    made = kubernetes.CreatePVC(pvc_name_suffix='-data', access_modes=['ReadWriteMany'], size='5Mi', storage_class_name='standard')
    top = write(path='/data/top.txt', text='top')
    kubernetes.mount_pvc(top, pvc_name=made.outputs['name'], mount_path='/data')
    below = write(path='/data/deep.txt', text='deep')
    kubernetes.mount_pvc(below, pvc_name=made.outputs['name'], mount_path='/data', sub_path='a/b')
    whole = files(folders=['/data/a/b']).after(top, below)
    kubernetes.mount_pvc(whole, pvc_name=made.outputs['name'], mount_path='/data')
    part = read(path='/data/top.txt').after(top)
    kubernetes.mount_pvc(part, pvc_name=made.outputs['name'], mount_path='/data')
    kubernetes.DeletePVC(pvc_name=made.outputs['name']).after(whole, part)
    Out = NamedTuple('Out', [('whole', Dict[str, str]), ('part', str)])
    return Out(whole=whole.output, part=part.output)


@dsl.pipeline(name='claim-that-is-there')
def claim_that_is_there(name: str = 'shared-data') -> str:
    task = write(path='/data/x', text='written')
    kubernetes.mount_pvc(task, pvc_name=name, mount_path='/data')
    return task.output


@dsl.pipeline(name='claim-twice')
def claim_twice():
    """A name that is taken."""
    kubernetes.CreatePVC(pvc_name='shared-data', access_modes=['ReadWriteOnce'], size='5Mi')


@dsl.pipeline(name='claim-that-is-gone')
def claim_that_is_gone():
    kubernetes.DeletePVC(pvc_name='no-such-claim')


@dsl.component(base_image=IMAGE)
def kinds(paths: List[str]) -> Dict[str, str]:
    """Writes to each folder and says what kind of file system it lies on."""
    found = {}
    for path in paths:
        with open(f'{path}/f', 'w') as f:
            f.write('x')
        with open('/proc/mounts') as mounts:
            points = {line.split()[1]: line.split()[2] for line in mounts}
        found[path] = 'memory' if points.get(path) == 'tmpfs' else 'disk' if path in points else 'nothing'
    return found


@dsl.component(base_image=IMAGE)
def shared_memory() -> int:
    import os

    stat = os.statvfs('/dev/shm')
    return stat.f_blocks * stat.f_frsize >> 20


@dsl.pipeline(name='ephemeral-volumes')
def ephemeral_volumes() -> NamedTuple('Out', kinds=Dict[str, str], shm=int):
    task = kinds(paths=['/mnt/ephemeral', '/mnt/empty', '/mnt/memory'])
    kubernetes.add_ephemeral_volume(task, volume_name='scratch', mount_path='/mnt/ephemeral', access_modes=['ReadWriteOnce'], size='5Mi')
    kubernetes.empty_dir_mount(task, volume_name='empty', mount_path='/mnt/empty')
    kubernetes.empty_dir_mount(task, volume_name='memory', mount_path='/mnt/memory', medium='Memory', size_limit='16Mi')
    shm = shared_memory()
    add(shm, enabledSharedMemory={'volumeName': 'shm', 'size': '96Mi'})
    Out = NamedTuple('Out', [('kinds', Dict[str, str]), ('shm', int)])
    return Out(kinds=task.output, shm=shm.output)


# The pod


@dsl.pipeline(name='pod-fields')
def pod_fields() -> Dict[str, str]:
    task = variables(names=['LABEL', 'NOTE', 'SPACE', 'NONE'])
    kubernetes.add_pod_label(task, label_key='team', label_value='a')
    kubernetes.add_pod_annotation(task, annotation_key='example.com/note', annotation_value='some words')
    kubernetes.use_field_path_as_env(task, env_name='LABEL', field_path="metadata.labels['team']")
    kubernetes.use_field_path_as_env(task, env_name='NOTE', field_path="metadata.annotations['example.com/note']")
    kubernetes.use_field_path_as_env(task, env_name='SPACE', field_path='metadata.namespace')
    kubernetes.use_field_path_as_env(task, env_name='NONE', field_path="metadata.labels['none']")
    return task.output


@dsl.pipeline(name='field-that-is-none')
def field_that_is_none() -> str:
    task = say(text='x')
    kubernetes.use_field_path_as_env(task, env_name='X', field_path='spec.containers')
    return task.output


@dsl.pipeline(name='image-settings')
def image_settings(secret: str = 'my-secret', gone: Optional[str] = None) -> str:
    """The image is there; secrets that are not, or hold no credentials, stop nothing."""
    task = say(text='pulled')
    kubernetes.set_image_pull_policy(task, 'IfNotPresent')
    kubernetes.set_image_pull_secrets(task, ['no-such-secret', secret, gone])
    return task.output


@dsl.pipeline(name='placement')
def placement(
    selector: dict = {'disk': 'ssd'}, toleration: dict = {'key': 'gpu', 'operator': 'Exists'}, affinity: Optional[dict] = None
) -> str:
    """Wishes about nodes and neighbours: there is one node, so they stop nothing."""
    task = say(text='here')
    kubernetes.add_node_selector(task, label_key='kubernetes.io/os', label_value='linux')
    kubernetes.add_toleration(task, key='special', operator='Equal', value='true', effect='NoSchedule')
    kubernetes.add_toleration_json(task, toleration_json=toleration)
    kubernetes.add_node_affinity(task, match_expressions=[{'key': 'disk', 'operator': 'In', 'values': ['ssd']}])
    kubernetes.add_node_affinity_json(task, node_affinity_json=affinity)
    add(task, podAffinity=[{'matchPodLabels': {'app': 'x'}, 'topologyKey': 'kubernetes.io/hostname', 'anti': True}])
    second = say(text=task.output)
    kubernetes.add_node_selector_json(second, node_selector_json=selector)
    return second.output


@dsl.component(base_image=IMAGE)
def identity() -> str:
    import os

    return f'{os.getuid()}:{os.getgid()}'


@dsl.pipeline(name='identity')
def run_as() -> str:
    # Root's group keeps the home of the image's root writable for pip, which runs first.
    task = identity().set_env_variable(name='HOME', value='/tmp')
    kubernetes.set_security_context(task, run_as_user=1234, run_as_group=0, run_as_non_root=True)
    return task.output


@dsl.pipeline(name='not-as-root')
def not_as_root() -> str:
    task = identity()
    kubernetes.set_security_context(task, run_as_non_root=True)
    return task.output


@dsl.pipeline(name='other-containers')
def other_containers() -> Dict[str, str]:
    """One container prepares a folder, one runs beside the step for as long as that runs."""

    @dsl.component(base_image=IMAGE)
    def together() -> Dict[str, str]:
        import time

        found = {}
        for _ in range(600):
            for name in ('first', 'beside'):
                try:
                    with open(f'/work/{name}') as f:
                        found[name] = f.read()
                except FileNotFoundError:
                    pass
            if len(found) == 2:
                return found
            time.sleep(0.1)
        return found

    task = together()
    kubernetes.empty_dir_mount(task, volume_name='work', mount_path='/work')
    add(task, initContainers=[
        {
            'name': 'prepare', 'image': IMAGE, 'command': ['sh', '-c'], 'args': ['printf "$TEXT" > /init/first'],
            'env': [{'name': 'TEXT', 'value': 'prepared'}], 'volumeMounts': [{'volumeName': 'work', 'mountPath': '/init'}],
        },
        {
            'name': 'sidecar', 'image': IMAGE, 'restartPolicy': 'Always',
            'command': ['sh', '-c', 'printf here > /side/tmp; mv /side/tmp /side/beside; sleep 3600'],
            'volumeMounts': [{'volumeName': 'work', 'mountPath': '/side'}], 'resources': {'requests': {'cpu': '100m'}},
        },
    ])
    return task.output


@dsl.pipeline(name='init-container-fails')
def init_container_fails() -> str:
    task = say(text='never')
    add(task, initContainers=[{'name': 'prepare', 'image': IMAGE, 'command': ['sh', '-c', 'exit 7']}])
    return task.output


PIPELINES = {
    f'{pipeline.name.replace("-", "_")}.yaml': pipeline
    for pipeline in (
        secret_env,
        secret_volume,
        config_map,
        missing_config_map,
        claim,
        claim_that_is_there,
        claim_twice,
        claim_that_is_gone,
        ephemeral_volumes,
        pod_fields,
        field_that_is_none,
        image_settings,
        placement,
        run_as,
        not_as_root,
        other_containers,
        init_container_fails,
    )
}
