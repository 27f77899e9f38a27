"""The contract with the SDK's executor, which runs inside each step: what it reads, and what it writes.

One pipeline, compiled by every version of the SDK that test/images/kfp-versions.txt names, each into a file
of its own, so that each version's compiler, installation and executor are what runs. Few steps do much each,
since every one installs its version.
"""
from typing import Dict, List, NamedTuple, Optional

import kfp
from kfp import dsl
from kfp.dsl import (
    HTML,
    Artifact,
    ClassificationMetrics,
    Dataset,
    Input,
    InputPath,
    Markdown,
    Metrics,
    Model,
    Output,
    OutputPath,
)

IMAGE = 'python:3.11'


@dsl.component(base_image=IMAGE)
def produce(
    text: str,
    integer: int,
    number: float,
    flag: bool,
    items: List[int],
    fields: Dict[str, str],
    plain_list: list,
    plain_dict: dict,
    dataset: Output[Dataset],
    model: Output[Model],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    html: Output[HTML],
    markdown: Output[Markdown],
    raw: OutputPath('Dataset'),
    count: OutputPath(int),
    words: OutputPath(list),
    absent: Optional[str] = None,
    nothing: Optional[Input[Dataset]] = None,
    given: Optional[int] = None,
    default_text: str = 'it is "quoted"',
    default_number: float = 0.5,
    default_flag: bool = True,
    default_list: List[str] = ['a', 'b'],
    default_dict: Dict[str, int] = {'one': 1},
    off: bool = False,
    zero: int = 0,
    empty: str = '',
) -> NamedTuple(
    'Outputs',
    [
        ('text', str),
        ('integer', int),
        ('number', float),
        ('flag', bool),
        ('items', List[int]),
        ('fields', Dict[str, str]),
        ('plain_list', list),
        ('plain_dict', dict),
        ('defaults', list),
        ('types', List[str]),
        ('result', Artifact),
    ],
):
    """Every type of parameter in and out, defaults, optional inputs; every class of artifact with its metadata."""
    import collections
    import json

    import kfp

    print('kfp', kfp.__version__)
    for item, content in ((dataset, 'a,b\n1,2\n'), (model, 'weights'), (html, '<b>bold</b>'), (markdown, '*text*')):
        with open(item.path, 'w') as f:
            f.write(content)
    dataset.metadata.update({'rows': 1, 'ratio': 0.25, 'clean': True, 'columns': ['a', 'b'], 'source': {'by': 'üser'}})
    model.framework = 'none'
    model.metadata['epochs'] = given
    metrics.log_metric('accuracy', 0.75)
    metrics.log_metric('loss', 2)
    classification.log_confusion_matrix(['cat', 'dog'], [[8, 2], [1, 9]])
    classification.log_roc_curve([0.0, 0.1, 1.0], [0.0, 0.9, 1.0], [1.0, 0.5, 0.0])
    for path, content in ((raw, 'raw data'), (count, '42'), (words, json.dumps(['x', 'y']))):
        with open(path, 'w') as f:
            f.write(content)

    seen = [text, integer, number, flag, items, fields, plain_list, plain_dict]
    defaults = [absent, nothing, given, default_text, default_number, default_flag, default_list, default_dict]
    defaults += [off, zero, empty]
    types = [type(value).__name__ for value in seen]
    names = 'text integer number flag items fields plain_list plain_dict defaults types result'
    return collections.namedtuple('Outputs', names)(*seen, defaults, types, 'the result')


@dsl.component(base_image=IMAGE)
def visit(entry: dict, out: Output[Dataset]) -> str:
    """One pass of a loop."""
    with open(out.path, 'w') as f:
        f.write(entry['n'])
    out.metadata['n'] = entry['n']
    return entry['n'].upper()


@dsl.component(base_image=IMAGE)
def consume(
    dataset: Input[Dataset],
    model: Input[Model],
    metrics: Input[Metrics],
    classification: Input[ClassificationMetrics],
    html: Input[HTML],
    markdown: Input[Markdown],
    result: Input[Artifact],
    raw: InputPath('Dataset'),
    count: int,
    words: list,
    names: List[str],
    visited: Input[List[Dataset]],
) -> dict:
    """What arrives of all that: classes, contents, metadata, and what a loop collected."""

    def content(path) -> str:
        with open(path) as f:
            return f.read()

    items = (dataset, model, metrics, classification, html, markdown, result)
    for item in items:
        assert item.uri.startswith('minio://') and item.name, item.__dict__
    return {
        'classes': [type(item).__name__ for item in items],
        'contents': [content(item.path) for item in (dataset, model, html, markdown, result)] + [content(raw)],
        'dataset': dataset.metadata,
        'model': [model.framework, model.metadata['epochs']],
        'metrics': metrics.metadata,
        'labels': [spec['displayName'] for spec in classification.metadata['confusionMatrix']['annotationSpecs']],
        'rows': [row['row'] for row in classification.metadata['confusionMatrix']['rows']],
        'points': classification.metadata['confidenceMetrics'],
        'values': [count, words],
        'names': names,
        'visited': [[content(one.path), one.metadata['n']] for one in visited],
    }


@dsl.component(base_image=IMAGE)
def newer(out: Output[Dataset]):
    """What an executor offers beyond 2.1's, as far as this one does; expect.yaml says which has what."""
    import os

    from kfp import dsl

    print(f"get_uri {hasattr(dsl, 'get_uri')}, set_path {hasattr(out, 'set_path')}")
    if hasattr(dsl, 'get_uri'):
        uri = dsl.get_uri(suffix='more/data')
        assert uri.startswith('minio://') and uri.endswith('/more/data'), uri
    if hasattr(out, 'set_path'):
        out.set_path('/tmp/elsewhere/data.txt')
        assert out.path == '/tmp/elsewhere/data.txt', out.path
    os.makedirs(os.path.dirname(out.path), exist_ok=True)
    with open(out.path, 'w') as f:
        f.write('newer')


@dsl.component(base_image=IMAGE)
def last(status: dsl.PipelineTaskFinalStatus, text: str = 'ended') -> list:
    """Runs when the work above has ended, and is told how."""
    assert status.pipeline_job_resource_name.startswith('sdk-contract-'), status
    return [text, status.state, status.pipeline_task_name, status.error_code, status.error_message]


Outputs = NamedTuple(
    'Outputs',
    [
        ('text', str),
        ('integer', int),
        ('number', float),
        ('flag', bool),
        ('items', List[int]),
        ('fields', Dict[str, str]),
        ('plain_list', list),
        ('plain_dict', dict),
        ('defaults', list),
        ('types', List[str]),
        ('consumed', dict),
        ('ended', list),
        ('dataset', Dataset),
        ('model', Model),
        ('metrics', Metrics),
        ('classification', ClassificationMetrics),
        ('html', HTML),
        ('markdown', Markdown),
    ],
)


@dsl.pipeline(name='sdk-contract')
def contract(
    text: str = 'two  words "ü" $HOME \\',
    integer: int = -7,
    number: float = 1.5,
    flag: bool = True,
    items: list = [3, 1, 2],
    fields: Dict[str, str] = {'key': 'value'},
) -> Outputs:
    made = produce(
        text=text,
        integer=integer,
        number=number,
        flag=flag,
        items=items,
        fields=fields,
        plain_list=[1, 'two', {'three': [4.5]}],
        plain_dict={'nested': {'list': [True, False]}, 'text': ''},
        given=5,
    ).outputs
    with dsl.ParallelFor([{'n': 'a'}, {'n': 'b'}], parallelism=2) as entry:
        passes = visit(entry=entry)
    consumed = consume(
        dataset=made['dataset'],
        model=made['model'],
        metrics=made['metrics'],
        classification=made['classification'],
        html=made['html'],
        markdown=made['markdown'],
        result=made['result'],
        raw=made['raw'],
        count=made['count'],
        words=made['words'],
        names=dsl.Collected(passes.outputs['Output']),
        visited=dsl.Collected(passes.outputs['out']),
    )
    ended = last()
    with dsl.ExitHandler(ended):
        newer()

    return Outputs(
        **{name: made[name] for name in Outputs._fields if name in made}, consumed=consumed.output, ended=ended.output
    )


PIPELINES = {f'kfp-{kfp.__version__}.yaml': contract}
