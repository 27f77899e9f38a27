"""Artifacts: every type, metadata, folders, lists, loops over them, custom paths, importers."""
import pathlib
from typing import List, NamedTuple, Optional

from kfp import dsl
from kfp.dsl import (
    HTML,
    Artifact,
    ClassificationMetrics,
    Dataset,
    Input,
    Markdown,
    Metrics,
    Model,
    Output,
    SlicedClassificationMetrics,
)

IMAGE = 'python:3.11'
HERE = pathlib.Path(__file__).parent


@dsl.component(base_image=IMAGE)
def write(text: str, out: Output[Dataset]):
    with open(out.path, 'w') as f:
        f.write(text)
    out.metadata['text'] = text


@dsl.component(base_image=IMAGE)
def read(data: Input[Dataset]) -> str:
    with open(data.path) as f:
        return f.read()


@dsl.component(base_image=IMAGE)
def read_all(data: Input[List[Dataset]]) -> str:
    parts = []
    for item in data:
        with open(item.path) as f:
            parts.append(f.read())
    return ','.join(parts)


# Types and metadata


@dsl.component(base_image=IMAGE)
def produce_all(
    artifact: Output[Artifact],
    dataset: Output[Dataset],
    model: Output[Model],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    sliced: Output[SlicedClassificationMetrics],
    html: Output[HTML],
    markdown: Output[Markdown],
):
    for item, text in ((artifact, 'a'), (dataset, 'd'), (model, 'm'), (html, '<b>h</b>'), (markdown, '*k*')):
        with open(item.path, 'w') as f:
            f.write(text)
    dataset.metadata.update({'rows': 3, 'ratio': 0.5, 'clean': True, 'columns': ['x', 'y'], 'source': {'by': 'test'}})
    model.framework = 'none'
    metrics.log_metric('accuracy', 0.75)
    metrics.log_metric('loss', 2)
    classification.log_confusion_matrix(['cat', 'dog'], [[8, 2], [1, 9]])
    classification.log_roc_curve([0.0, 0.1, 1.0], [0.0, 0.9, 1.0], [1.0, 0.5, 0.0])
    sliced.metadata['evaluationSlices'] = [{'slice': 'small', 'rows': 10}]


@dsl.component(base_image=IMAGE)
def consume_all(
    artifact: Input[Artifact],
    dataset: Input[Dataset],
    model: Input[Model],
    metrics: Input[Metrics],
    classification: Input[ClassificationMetrics],
    html: Input[HTML],
    markdown: Input[Markdown],
) -> dict:
    """Gives the types, the contents and the metadata as they arrived."""

    def content(item) -> str:
        with open(item.path) as f:
            return f.read()

    items = (artifact, dataset, model, metrics, classification, html, markdown)
    for item in items:
        assert item.uri and item.name, item.__dict__
    return {
        'types': [item.schema_title for item in items],
        'contents': [content(item) for item in (artifact, dataset, model, html, markdown)],
        'dataset': dataset.metadata,
        'framework': model.metadata['framework'],
        'metrics': metrics.metadata,
        'labels': [spec['displayName'] for spec in classification.metadata['confusionMatrix']['annotationSpecs']],
        'rows': [row['row'] for row in classification.metadata['confusionMatrix']['rows']],
        'points': len(classification.metadata['confidenceMetrics']),
    }


@dsl.pipeline(name='artifact-types')
def artifact_types() -> dict:
    made = produce_all()
    o = made.outputs
    return consume_all(
        artifact=o['artifact'],
        dataset=o['dataset'],
        model=o['model'],
        metrics=o['metrics'],
        classification=o['classification'],
        html=o['html'],
        markdown=o['markdown'],
    ).output


@dsl.component(base_image=IMAGE)
def folder(out: Output[Artifact]):
    import os

    os.makedirs(os.path.join(out.path, 'deep', 'er'))
    for name in ('a.txt', 'deep/b.txt', 'deep/er/c.txt', 'with space ü.txt'):
        with open(os.path.join(out.path, name), 'w') as f:
            f.write(name)
    os.symlink('a.txt', os.path.join(out.path, 'link'))
    os.chmod(os.path.join(out.path, 'deep', 'b.txt'), 0o755)


@dsl.component(base_image=IMAGE)
def walk(data: Input[Artifact]) -> List[str]:
    import os

    names = []
    for base, _, files in os.walk(data.path):
        for name in files:
            path = os.path.join(base, name)
            with open(path) as f:
                f.read()
            mode = 'x' if os.access(path, os.X_OK) and os.stat(path).st_mode & 0o100 else '-'
            names.append(f'{os.path.relpath(path, data.path)}:{mode}')
    return sorted(names)


@dsl.pipeline(name='folder-artifact')
def folder_artifact() -> List[str]:
    """A folder with sub-folders, a link inside it, an executable file and a name that needs quoting."""
    return walk(data=folder().output).output


@dsl.pipeline(name='reading')
def reading(data: Input[Dataset]) -> str:
    return read(data=data).output


@dsl.pipeline(name='many-readers')
def many_readers() -> str:
    """One artifact, three readers at once, one of them in a nested pipeline."""

    @dsl.component(base_image=IMAGE)
    def three(a: str, b: str, c: str) -> str:
        return a + b + c

    data = write(text='x')
    a = read(data=data.output)
    b = read(data=data.output)
    c = reading(data=data.output)
    return three(a=a.output, b=b.output, c=c.output).output


@dsl.component(base_image=IMAGE)
def declares_only(out: Output[Dataset]) -> str:
    return 'wrote nothing'


@dsl.component(base_image=IMAGE)
def exists(data: Input[Dataset]) -> bool:
    import os

    return os.path.exists(data.path)


@dsl.pipeline(name='artifact-never-written')
def artifact_never_written() -> bool:
    """A declared artifact that was not written: the step succeeds, the reader finds no file."""
    return exists(data=declares_only().outputs['out']).output


@dsl.component(base_image=IMAGE)
def try_to_change(data: Input[Dataset]) -> str:
    try:
        with open(data.path, 'a') as f:
            f.write(' changed')
    except OSError as error:
        print('as it should be:', error)
    return 'tried'


@dsl.pipeline(name='inputs-stay-as-they-are')
def inputs_stay_as_they_are() -> str:
    """A step that writes to its input changes nothing for the others."""
    data = write(text='original')
    tried = try_to_change(data=data.output)
    return read(data=data.output).after(tried).output


# Pythonic artifacts


@dsl.component(base_image=IMAGE)
def returned(text: str) -> Dataset:
    uri = dsl.get_uri(suffix='returned.txt')
    data = Dataset(uri=uri, metadata={'length': len(text)})
    with open(data.path, 'w') as f:
        f.write(text)
    return data


@dsl.component(base_image=IMAGE)
def returned_two() -> NamedTuple('Two', first=Dataset, second=Model):
    first = Dataset(uri=dsl.get_uri(suffix='first'))
    second = Model(uri=dsl.get_uri(suffix='second'), metadata={'kind': 'second'})
    for item, text in ((first, 'one'), (second, 'two')):
        with open(item.path, 'w') as f:
            f.write(text)
    Two = NamedTuple('Two', [('first', Dataset), ('second', Model)])
    return Two(first=first, second=second)


@dsl.component(base_image=IMAGE)
def show(data: Dataset, first: Dataset, second: Model) -> str:
    texts = []
    for item in (data, first, second):
        with open(item.path) as f:
            texts.append(f.read())
    return f'{" ".join(texts)} {data.metadata["length"]} {second.metadata["kind"]}'


@dsl.pipeline(name='pythonic-artifacts')
def pythonic_artifacts() -> str:
    two = returned_two()
    return show(data=returned(text='text').output, first=two.outputs['first'], second=two.outputs['second']).output


# Custom paths and embedded files


@dsl.component(base_image=IMAGE)
def write_elsewhere(out: Output[Dataset]) -> str:
    import os

    out.custom_path = '/tmp/elsewhere/data.txt'
    os.makedirs('/tmp/elsewhere', exist_ok=True)
    with open(out.path, 'w') as f:
        f.write('from elsewhere')
    return out.path


@dsl.pipeline(name='custom-path')
def custom_path() -> NamedTuple('Out', path=str, text=str):
    made = write_elsewhere()
    Out = NamedTuple('Out', [('path', str), ('text', str)])
    return Out(path=made.outputs['Output'], text=read(data=made.outputs['out']).output)


@dsl.component(base_image=IMAGE, embedded_artifact_path=str(HERE / 'embedded' / 'note.txt'))
def embedded_file(note: dsl.EmbeddedInput[Dataset]) -> str:
    with open(note.path) as f:
        return f.read().strip()


@dsl.component(base_image=IMAGE, embedded_artifact_path=str(HERE / 'embedded' / 'folder'))
def embedded_folder(files: dsl.EmbeddedInput[Dataset]) -> str:
    import os

    import helper_module

    names = sorted(name for name in os.listdir(files.path) if name != '__pycache__')
    return f'{",".join(names)} {helper_module.answer()}'


@dsl.pipeline(name='embedded')
def embedded() -> NamedTuple('Out', file=str, folder=str):
    Out = NamedTuple('Out', [('file', str), ('folder', str)])
    return Out(file=embedded_file().output, folder=embedded_folder().output)


# Lists and loops


@dsl.pipeline(name='collected-artifacts')
def collected_artifacts() -> str:
    with dsl.ParallelFor(items=['a', 'b', 'c']) as item:
        one = write(text=item)
    return read_all(data=dsl.Collected(one.outputs['out'])).output


@dsl.component(base_image=IMAGE)
def join(a: str, b: str) -> str:
    return a + b


@dsl.pipeline(name='writing')
def writing(a: str, b: str) -> Dataset:
    return write(text=join(a=a, b=b).output).outputs['out']


@dsl.pipeline(name='collected-artifacts-nested')
def collected_artifacts_nested() -> str:
    """Two levels of loops, a nested pipeline inside: one flat list in the order of the iterations."""
    with dsl.ParallelFor(items=['a', 'b']) as outer:
        with dsl.ParallelFor(items=['1', '2']) as inner:
            one = writing(a=outer, b=inner)
    return read_all(data=dsl.Collected(one.outputs['Output'])).output


@dsl.pipeline(name='making-a-list')
def making_a_list() -> List[Dataset]:
    with dsl.ParallelFor(items=['x', 'yy', 'zzz']) as item:
        one = write(text=item)
    return dsl.Collected(one.outputs['out'])


@dsl.component(base_image=IMAGE)
def shout(data: Input[Dataset], out: Output[Dataset]) -> int:
    with open(data.path) as f:
        text = f.read()
    with open(out.path, 'w') as f:
        f.write(text.upper())
    return len(text)


@dsl.component(base_image=IMAGE)
def total(values: List[int]) -> int:
    return sum(values)


@dsl.pipeline(name='loop-over-artifacts')
def loop_over_artifacts() -> NamedTuple('Out', texts=str, lengths=int):
    """A loop over a list of artifacts that a nested pipeline gave; both kinds of outputs collected."""
    made = making_a_list()
    with dsl.ParallelFor(items=made.output) as item:
        one = shout(data=item)
    texts = read_all(data=dsl.Collected(one.outputs['out']))
    lengths = total(values=dsl.Collected(one.outputs['Output']))
    Out = NamedTuple('Out', [('texts', str), ('lengths', int)])
    return Out(texts=texts.output, lengths=lengths.output)


# Optional artifacts


@dsl.component(base_image=IMAGE)
def maybe_read(data: Optional[Input[Dataset]] = None) -> str:
    if data is None:
        return 'nothing'
    with open(data.path) as f:
        return f.read()


@dsl.pipeline(name='maybe-reading')
def maybe_reading(data: Optional[Input[Dataset]] = None) -> str:
    return maybe_read(data=data).output


@dsl.pipeline(name='optional-artifacts')
def optional_artifacts() -> NamedTuple('Out', a=str, b=str, c=str, d=str):
    """An optional artifact given and not given, to a step and through a nested pipeline."""
    data = write(text='something')
    Out = NamedTuple('Out', [('a', str), ('b', str), ('c', str), ('d', str)])
    return Out(
        a=maybe_read().output,
        b=maybe_read(data=data.output).output,
        c=maybe_reading().output,
        d=maybe_reading(data=data.output).output,
    )


# Importers


@dsl.component(base_image=IMAGE)
def uri_of(data: Input[Dataset]) -> str:
    return data.uri


@dsl.component(base_image=IMAGE)
def read_with_metadata(data: Input[Dataset]) -> dict:
    with open(data.path) as f:
        return {'text': f.read(), 'metadata': data.metadata}


@dsl.pipeline(name='import-what-was-made')
def import_what_was_made(note: str = 'a note') -> dict:
    """The importer is given the URI of an artifact of this very run, and metadata with placeholders."""
    made = write(text='to be imported')
    uri = uri_of(data=made.output)
    imported = dsl.importer(
        artifact_uri=uri.output,
        artifact_class=Dataset,
        reimport=True,
        metadata={'note': note, 'from': f'uri of {note}', 'nested': {'list': [note, 1]}},
    )
    return read_with_metadata(data=imported.output).output


@dsl.pipeline(name='import-only')
def import_only(uri: str = 'gs://no-such-bucket/no-such-object') -> Dataset:
    """Importing alone touches nothing, whatever the URI."""
    return dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata={'from': 'far'}).output


@dsl.component(base_image=IMAGE)
def models_in(model: Input[Model]) -> dict:
    import os

    try:
        open(os.path.join(model.path, 'new'), 'w')
    except OSError as e:
        writing = e.strerror
    with open(os.path.join(model.path, 'config.json')) as f:
        return {'path': model.path, 'config': f.read().strip(), 'writing': writing}


@dsl.container_component
def list_models(model: Input[Model], listing: dsl.OutputPath(str)):
    script = 'mkdir -p "$(dirname "$1")" && cd "$0" && ls *.txt > "$1"'
    return dsl.ContainerSpec(image='alpine', command=['sh', '-c', script], args=[model.path, listing])


@dsl.pipeline(name='model-car')
def model_car(uri: str = 'oci://registry.domain.local/modelcar:test') -> NamedTuple('Seen', [('python', dict), ('shell', str)]):
    """A model that is an image: its files are read, and stay as they are."""
    Seen = NamedTuple('Seen', [('python', dict), ('shell', str)])
    model = dsl.importer(artifact_uri=uri, artifact_class=Model)
    return Seen(python=models_in(model=model.output).output, shell=list_models(model=model.output).outputs['listing'])


PIPELINES = {
    f'{pipeline.name.replace("-", "_")}.yaml': pipeline
    for pipeline in (
        artifact_types,
        folder_artifact,
        many_readers,
        artifact_never_written,
        inputs_stay_as_they_are,
        pythonic_artifacts,
        custom_path,
        embedded,
        collected_artifacts,
        collected_artifacts_nested,
        loop_over_artifacts,
        optional_artifacts,
        import_what_was_made,
        import_only,
        model_car,
    )
}
