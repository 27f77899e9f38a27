"""Train two models on the same data, in parallel, and keep the better one.

prepare-data ─┬─► train-logistic ─┬─► compare ─► evaluate ─► publish
              └─► train-tree ─────┘

Only the standard library is used, so nothing but the kfp package itself is installed.
"""
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import ClassificationMetrics, Dataset, Input, Metrics, Model, Output

IMAGE = 'python:3.11'


@dsl.component(base_image=IMAGE)
def prepare_data(rows: int, noise: float, seed: int, train: Output[Dataset], test: Output[Dataset]) -> int:
    """Makes two interleaved half circles with noise and splits them four to one."""
    import csv
    import math
    import random

    rng = random.Random(seed)
    points = []
    for i in range(rows):
        label = i % 2
        angle = rng.uniform(0, math.pi)
        x, y = math.cos(angle), math.sin(angle)
        if label:
            x, y = 1 - x, 0.5 - y
        points.append((x + rng.gauss(0, noise), y + rng.gauss(0, noise), label))
    rng.shuffle(points)
    cut = rows * 4 // 5
    for artifact, part in ((train, points[:cut]), (test, points[cut:])):
        with open(artifact.path, 'w', newline='') as f:
            csv.writer(f).writerows(part)
        artifact.metadata['rows'] = len(part)
    print(f'{cut} rows to train on, {rows - cut} to test on')
    return cut


@dsl.component(base_image=IMAGE)
def train_logistic(train: Input[Dataset], epochs: int, rate: float, model: Output[Model]):
    """Logistic regression by stochastic gradient descent."""
    import csv
    import json
    import math
    import random

    with open(train.path, newline='') as f:
        data = [(float(x), float(y), int(label)) for x, y, label in csv.reader(f)]
    weights = [0.0, 0.0, 0.0]
    rng = random.Random(0)
    for epoch in range(epochs):
        rng.shuffle(data)
        loss = 0.0
        for x, y, label in data:
            p = 1 / (1 + math.exp(-(weights[0] + weights[1] * x + weights[2] * y)))
            loss -= math.log(max(p if label else 1 - p, 1e-12))
            for i, value in enumerate((1.0, x, y)):
                weights[i] += rate * (label - p) * value
        print(f'epoch {epoch + 1}: loss {loss / len(data):.4f}')
    with open(model.path, 'w') as f:
        json.dump({'kind': 'logistic', 'weights': weights}, f)
    model.framework = 'none'
    model.metadata['kind'] = 'logistic'


@dsl.component(base_image=IMAGE)
def train_tree(train: Input[Dataset], depth: int, model: Output[Model]):
    """A decision tree, split where the Gini impurity falls most."""
    import csv
    import json

    with open(train.path, newline='') as f:
        data = [(float(x), float(y), int(label)) for x, y, label in csv.reader(f)]

    def impurity(ones: int, total: int) -> float:
        share = ones / total
        return total * 2 * share * (1 - share)

    def grow(rows: list, left_depth: int) -> dict:
        ones = sum(row[2] for row in rows)
        leaf = {'p': (ones + 1) / (len(rows) + 2)}
        if left_depth == 0 or ones in (0, len(rows)) or len(rows) < 10:
            return leaf
        best = None
        for axis in (0, 1):
            ordered = sorted(rows, key=lambda row: row[axis])
            seen = 0
            for i in range(1, len(ordered)):
                seen += ordered[i - 1][2]
                if ordered[i][axis] == ordered[i - 1][axis]:
                    continue
                score = impurity(seen, i) + impurity(ones - seen, len(ordered) - i)
                if best is None or score < best[0]:
                    best = (score, axis, (ordered[i][axis] + ordered[i - 1][axis]) / 2)
        if best is None:
            return leaf
        _, axis, at = best
        return {
            'axis': axis,
            'at': at,
            'below': grow([row for row in rows if row[axis] < at], left_depth - 1),
            'above': grow([row for row in rows if row[axis] >= at], left_depth - 1),
        }

    tree = grow(data, depth)
    with open(model.path, 'w') as f:
        json.dump({'kind': 'tree', 'tree': tree}, f)
    model.framework = 'none'
    model.metadata['kind'] = 'tree'
    model.metadata['depth'] = depth


@dsl.component(base_image=IMAGE)
def compare(
    test: Input[Dataset],
    logistic: Input[Model],
    tree: Input[Model],
    best_model: Output[Model],
    metrics: Output[Metrics],
) -> NamedTuple('Comparison', winner=str, accuracy=float):
    """Scores both models on the test rows and passes the better one on."""
    import csv
    import json
    import math
    from typing import NamedTuple

    def predict(model: dict, x: float, y: float) -> float:
        if model['kind'] == 'logistic':
            w = model['weights']
            return 1 / (1 + math.exp(-(w[0] + w[1] * x + w[2] * y)))
        node = model['tree']
        while 'axis' in node:
            node = node['below'] if (x, y)[node['axis']] < node['at'] else node['above']
        return node['p']

    with open(test.path, newline='') as f:
        data = [(float(x), float(y), int(label)) for x, y, label in csv.reader(f)]
    scores = {}
    for artifact in (logistic, tree):
        with open(artifact.path) as f:
            model = json.load(f)
        right = sum((predict(model, x, y) >= 0.5) == bool(label) for x, y, label in data)
        scores[model['kind']] = (right / len(data), model)
        metrics.log_metric(f'{model["kind"]}_accuracy', round(right / len(data), 4))
    winner = max(scores, key=lambda kind: scores[kind][0])
    with open(best_model.path, 'w') as f:
        json.dump(scores[winner][1], f)
    best_model.metadata['kind'] = winner
    print({kind: score for kind, (score, _) in scores.items()}, 'winner:', winner)
    Comparison = NamedTuple('Comparison', [('winner', str), ('accuracy', float)])
    return Comparison(winner=winner, accuracy=round(scores[winner][0], 4))


@dsl.component(base_image=IMAGE)
def evaluate(
    test: Input[Dataset],
    model: Input[Model],
    metrics: Output[Metrics],
    curves: Output[ClassificationMetrics],
) -> NamedTuple('Scores', accuracy=float, f1=float):
    """Precision, recall, F1, the confusion matrix and the ROC curve of the chosen model."""
    import csv
    import json
    import math
    from typing import NamedTuple

    with open(model.path) as f:
        best = json.load(f)

    def predict(x: float, y: float) -> float:
        if best['kind'] == 'logistic':
            w = best['weights']
            return 1 / (1 + math.exp(-(w[0] + w[1] * x + w[2] * y)))
        node = best['tree']
        while 'axis' in node:
            node = node['below'] if (x, y)[node['axis']] < node['at'] else node['above']
        return node['p']

    with open(test.path, newline='') as f:
        scored = [(predict(float(x), float(y)), int(label)) for x, y, label in csv.reader(f)]
    count = {(guess, label): 0 for guess in (0, 1) for label in (0, 1)}
    for p, label in scored:
        count[int(p >= 0.5), label] += 1
    accuracy = (count[0, 0] + count[1, 1]) / len(scored)
    precision = count[1, 1] / max(count[1, 0] + count[1, 1], 1)
    recall = count[1, 1] / max(count[0, 1] + count[1, 1], 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    for name, value in (('accuracy', accuracy), ('precision', precision), ('recall', recall), ('f1', f1)):
        metrics.log_metric(name, round(value, 4))

    curves.log_confusion_matrix(['outer', 'inner'], [[count[0, 0], count[1, 0]], [count[0, 1], count[1, 1]]])
    positives = sum(label for _, label in scored)
    negatives = len(scored) - positives
    false_rates, true_rates, thresholds = [], [], []
    for step in range(20, -1, -1):
        at = step / 20
        hits = [label for p, label in scored if p >= at]
        thresholds.append(at)
        true_rates.append(sum(hits) / max(positives, 1))
        false_rates.append((len(hits) - sum(hits)) / max(negatives, 1))
    curves.log_roc_curve(false_rates, true_rates, thresholds)
    Scores = NamedTuple('Scores', [('accuracy', float), ('f1', float)])
    return Scores(accuracy=round(accuracy, 4), f1=round(f1, 4))


@dsl.component(base_image=IMAGE)
def publish(model: Input[Model], accuracy: float, required: float, final_model: Output[Model]) -> str:
    """Writes the model that goes out; fails where it is not good enough."""
    import hashlib
    import shutil

    if accuracy < required:
        raise SystemExit(f'accuracy {accuracy} is below the required {required}: the model stays where it is')
    shutil.copyfile(model.path, final_model.path)
    with open(final_model.path, 'rb') as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    final_model.metadata.update({'kind': model.metadata['kind'], 'accuracy': accuracy, 'sha256': digest})
    return model.metadata['kind']


@dsl.pipeline(
    name='train-compare',
    description='Trains two models in parallel, keeps the better one and measures it.',
)
def train_compare(
    rows: int = 2000,
    noise: float = 0.2,
    seed: int = 7,
    epochs: int = 5,
    depth: int = 6,
    required_accuracy: float = 0.9,
) -> NamedTuple('Result', model=Model, kind=str, accuracy=float, f1=float):
    data = prepare_data(rows=rows, noise=noise, seed=seed)
    logistic = train_logistic(train=data.outputs['train'], epochs=epochs, rate=0.1)
    tree = train_tree(train=data.outputs['train'], depth=depth)
    best = compare(
        test=data.outputs['test'],
        logistic=logistic.outputs['model'],
        tree=tree.outputs['model'],
    )
    scores = evaluate(test=data.outputs['test'], model=best.outputs['best_model'])
    final = publish(
        model=best.outputs['best_model'],
        accuracy=scores.outputs['accuracy'],
        required=required_accuracy,
    )
    Result = NamedTuple('Result', [('model', Model), ('kind', str), ('accuracy', float), ('f1', float)])
    return Result(
        model=final.outputs['final_model'],
        kind=final.outputs['Output'],
        accuracy=scores.outputs['accuracy'],
        f1=scores.outputs['f1'],
    )


PIPELINES = {'pipeline.yaml': train_compare}
