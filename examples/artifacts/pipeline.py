"""Hand files on from step to step: a dataset, what was counted in it, and a page to look at."""
from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Output


@dsl.component(base_image='python:3.11')
def write_words(text: str, words: Output[Dataset]):
    with open(words.path, 'w') as f:
        f.write('\n'.join(text.lower().split()))
    words.metadata['language'] = 'en'


@dsl.component(base_image='python:3.11')
def count_words(words: Input[Dataset], metrics: Output[Metrics], page: Output[HTML]) -> dict:
    import collections
    import html

    with open(words.path) as f:
        counts = collections.Counter(f.read().split())
    metrics.log_metric('words', sum(counts.values()))
    metrics.log_metric('different', len(counts))
    rows = ''.join(f'<tr><td>{html.escape(word)}</td><td>{n}</td></tr>' for word, n in counts.most_common())
    with open(page.path, 'w') as f:
        f.write(f'<table>{rows}</table>')
    return dict(counts)


@dsl.pipeline(name='artifacts')
def artifacts(text: str = 'the cat saw the dog and the dog saw the cat') -> dict:
    words = write_words(text=text)
    return count_words(words=words.outputs['words']).outputs['Output']


PIPELINES = {'pipeline.yaml': artifacts}
