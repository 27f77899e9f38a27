"""One pipeline in every form in which a compiled package may arrive."""
import gzip
import io
import json
import tarfile
import tempfile
import zipfile

import yaml
from google.protobuf import json_format
from kfp import compiler, dsl
from kfp.pipeline_spec import pipeline_spec_pb2

IMAGE = 'python:3.11'


@dsl.component(base_image=IMAGE)
def repeat(text: str, times: int, ratio: float = 1.5) -> str:
    return f'{text * times} {ratio}'


@dsl.pipeline(name='form', display_name='A form', description='The same pipeline, written another way.')
def form(text: str = 'ab', times: int = 2) -> str:
    first = repeat(text=text, times=times)
    return repeat(text=first.output, times=1, ratio=2.0).output


def compiled() -> dict:
    with tempfile.NamedTemporaryFile(suffix='.yaml') as file:
        compiler.Compiler().compile(form, file.name)
        return yaml.safe_load(file.read())


def dump(document, path):
    with open(path, 'w') as f:
        if str(path).endswith('.json'):
            json.dump(document, f, indent=2, sort_keys=True)
            f.write('\n')
        else:
            yaml.safe_dump(document, f, sort_keys=True)


def as_json(path):
    dump(compiled(), path)


def snake_case(path):
    """The proto's own field names; map keys stay as they are."""
    document = compiled()
    deployment = json_format.ParseDict(document['deploymentSpec'], pipeline_spec_pb2.PipelineDeploymentConfig())
    spec = json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
    result = json_format.MessageToDict(spec, preserving_proto_field_name=True)
    result['deployment_spec'] = json_format.MessageToDict(deployment, preserving_proto_field_name=True)
    dump(result, path)


def pipeline_job(path):
    """The old wrapper: the specification with the run's parameters beside it."""
    dump({'displayName': 'a job', 'pipelineSpec': compiled(), 'runtimeConfig': {'parameterValues': {'text': 'cd'}}}, path)


def pipeline_job_old(path):
    """Older still: values by type, and the root folder named."""
    job = {
        'pipelineSpec': compiled(),
        'runtimeConfig': {'parameters': {'text': {'stringValue': 'ef'}, 'times': {'intValue': '3'}}},
    }
    dump(job, path)


def two_documents(path):
    with open(path, 'w') as f:
        yaml.safe_dump_all([compiled(), {'platforms': {'kubernetes': {'deploymentSpec': {'executors': {}}}}}], f)


def with_comments_and_anchors(path):
    """YAML as a person would write it: comments, an anchor, a folded string, a merge of nothing."""
    text = yaml.safe_dump(compiled(), sort_keys=True)
    text = text.replace('parameterType: STRING', 'parameterType: &string STRING', 1)
    head, tail = text.split('&string STRING', 1)
    tail = tail.replace('parameterType: STRING', 'parameterType: *string', 1)
    with open(path, 'w') as f:
        f.write('# The head of the file.\n%YAML 1.1\n---\n' + head + '&string STRING # the anchor' + tail + '\n...\n')


def deprecated_types(path):
    """`type` with its old words in place of `parameterType`."""
    words = {'STRING': 'STRING', 'NUMBER_INTEGER': 'INT', 'NUMBER_DOUBLE': 'DOUBLE'}

    def rewrite(node):
        if isinstance(node, list):
            return [rewrite(item) for item in node]
        if isinstance(node, dict):
            return {
                ('type' if key == 'parameterType' else key): (words[value] if key == 'parameterType' else rewrite(value))
                for key, value in node.items()
            }
        return node

    dump(rewrite(compiled()), path)


def add_to_tar(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def tarball(path):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode='w') as archive:
        add_to_tar(archive, 'README.md', b'not a pipeline\n')
        add_to_tar(archive, 'pipeline.yaml', yaml.safe_dump(compiled()).encode())
    with open(path, 'wb') as f:
        f.write(gzip.compress(raw.getvalue(), mtime=0))


def zip_of(*files):
    def write(path):
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            for name, data in files:
                data = yaml.safe_dump(compiled()) if data is None else data
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)

    return write


PIPELINES = {
    'plain.yaml': form,
    'plain.json': as_json,
    'snake_case.yaml': snake_case,
    'pipeline_job.json': pipeline_job,
    'pipeline_job.yaml': pipeline_job,
    'pipeline_job_old.json': pipeline_job_old,
    'two_documents.yaml': two_documents,
    'anchors.yaml': with_comments_and_anchors,
    'deprecated_types.yaml': deprecated_types,
    'package.tar.gz': tarball,
    'package.tgz': tarball,
    # pipeline.yaml is preferred where there are several, else the only YAML file is taken.
    'several.zip': zip_of(('other.yaml', 'pipelineInfo: {name: other}\n'), ('pipeline.yaml', None)),
    'single.zip': zip_of(('notes.txt', 'not a pipeline'), ('my-form.yaml', None)),
    'ambiguous.zip': zip_of(('a.yaml', None), ('b.yaml', None)),
    'empty.zip': zip_of(),
    'climbing.zip': zip_of(('../../climbed.yaml', None)),
}
