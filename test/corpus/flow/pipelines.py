"""Control flow: conditions, loops, collected results, exit handlers, retries, nested pipelines."""
from typing import Dict, List, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

IMAGE = 'python:3.11'


@dsl.component(base_image=IMAGE)
def echo(text: str) -> str:
    print(text)
    return text


@dsl.component(base_image=IMAGE)
def pair(a: str, b: str) -> str:
    return f'{a}-{b}'


@dsl.component(base_image=IMAGE)
def number(value: int) -> int:
    return value


@dsl.component(base_image=IMAGE)
def double(value: int) -> int:
    return 2 * value


@dsl.component(base_image=IMAGE)
def numbers(count: int) -> List[int]:
    return list(range(count))


@dsl.component(base_image=IMAGE)
def join(parts: List[str]) -> str:
    return ','.join(parts)


@dsl.component(base_image=IMAGE)
def listing(parts: list) -> list:
    return parts


@dsl.component(base_image=IMAGE)
def total(values: List[int]) -> int:
    return sum(values)


@dsl.component(base_image=IMAGE)
def deep_total(values: list) -> int:
    def add(value):
        return sum(map(add, value)) if isinstance(value, list) else value

    return add(values)


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


@dsl.component(base_image=IMAGE)
def fail(message: str) -> str:
    raise SystemExit(message)


@dsl.component(base_image=IMAGE)
def fail_if(condition: bool, message: str) -> str:
    if condition:
        raise SystemExit(message)
    return message


# Conditions


@dsl.pipeline(name='if-elif-else')
def if_elif_else(value: int = 5) -> str:
    """Three branches, one taken; the consumer reads whichever it was."""
    n = number(value=value)
    with dsl.If(n.output < 3):
        small = echo(text='small')
    with dsl.Elif(n.output < 10):
        medium = echo(text='medium')
    with dsl.Else():
        large = echo(text='large')
    return echo(text=dsl.OneOf(small.output, medium.output, large.output)).output


@dsl.pipeline(name='oneof-artifacts')
def oneof_artifacts(left: bool = True) -> str:
    with dsl.If(left == True):  # noqa: E712 the SDK overloads the operator
        a = write(text='left')
    with dsl.Else():
        b = write(text='right')
    return read(data=dsl.OneOf(a.outputs['out'], b.outputs['out'])).output


@dsl.pipeline(name='oneof-as-output')
def oneof_as_output(left: bool = True) -> str:
    """OneOf straight to the pipeline's output, no consumer between."""
    with dsl.If(left == True):  # noqa: E712
        a = echo(text='left')
    with dsl.Else():
        b = echo(text='right')
    return dsl.OneOf(a.output, b.output)


@dsl.pipeline(name='comparisons')
def comparisons(i: int = 3, f: float = 2.5, s: str = 'abc', b: bool = True):
    """Each operator on each type; the tasks that run are those whose condition holds."""
    with dsl.If(i == 3, name='int-equal'):
        echo(text='yes')
    with dsl.If(i != 3, name='int-unequal'):
        echo(text='no')
    with dsl.If(i > 2, name='int-greater'):
        echo(text='yes')
    with dsl.If(i <= 2, name='int-at-most'):
        echo(text='no')
    with dsl.If(f >= 2.5, name='float-at-least'):
        echo(text='yes')
    with dsl.If(f < 2.5, name='float-less'):
        echo(text='no')
    with dsl.If(s == 'abc', name='string-equal'):
        echo(text='yes')
    with dsl.If(s > 'abd', name='string-greater'):
        echo(text='no')
    with dsl.If(b == True, name='bool-true'):  # noqa: E712
        echo(text='yes')
    with dsl.If(b != True, name='bool-false'):  # noqa: E712
        echo(text='no')


@dsl.pipeline(name='conditions-in-conditions')
def conditions_in_conditions(a: int = 1, b: int = 1) -> str:
    first = number(value=a)
    second = number(value=b)
    with dsl.If(first.output == 1):
        with dsl.If(second.output == 1):
            both = echo(text='both')
        with dsl.Else():
            only_first = echo(text='only first')
        inner = dsl.OneOf(both.output, only_first.output)
        inside = echo(text=inner)
    with dsl.Else():
        none = echo(text='none')
    return echo(text=dsl.OneOf(inside.output, none.output)).output


@dsl.pipeline(name='condition-between-outputs')
def condition_between_outputs(a: int = 2, b: int = 3):
    """Both sides of the comparison are outputs of tasks."""
    x = number(value=a)
    y = number(value=b)
    with dsl.If(x.output == y.output, name='same'):
        echo(text='same')
    with dsl.If(x.output < y.output, name='less'):
        echo(text='less')


# Loops


@dsl.pipeline(name='loop-over-constants')
def loop_over_constants() -> List[str]:
    with dsl.ParallelFor(items=['a', 'b', 'c']) as item:
        one = echo(text=item)
    return listing(parts=dsl.Collected(one.output)).output


@dsl.pipeline(name='loop-over-input')
def loop_over_input(items: List[int] = [1, 2, 3]) -> int:
    with dsl.ParallelFor(items=items) as item:
        one = double(value=item)
    return total(values=dsl.Collected(one.output)).output


@dsl.pipeline(name='loop-over-output')
def loop_over_output(count: int = 4) -> int:
    made = numbers(count=count)
    with dsl.ParallelFor(items=made.output) as item:
        one = double(value=item)
    return total(values=dsl.Collected(one.output)).output


@dsl.pipeline(name='loop-over-structs')
def loop_over_structs() -> List[str]:
    """Items are dictionaries; their fields go to different inputs, numbers as text."""
    with dsl.ParallelFor(items=[{'who': 'ann', 'age': 3}, {'who': 'bob', 'age': 5}]) as item:
        age = echo(text=item.age)
        one = pair(a=item.who, b=age.output)
    return listing(parts=dsl.Collected(one.output)).output


@dsl.pipeline(name='nested-loops')
def nested_loops() -> List[List[str]]:
    """Collected over two levels is a list of lists, in the order of the iterations."""
    with dsl.ParallelFor(items=['a', 'b']) as outer:
        with dsl.ParallelFor(items=['1', '2', '3']) as inner:
            one = pair(a=outer, b=inner)
    return listing(parts=dsl.Collected(one.output)).output


@dsl.pipeline(name='nested-loops-three')
def nested_loops_three() -> int:
    with dsl.ParallelFor(items=[1, 2]) as a:
        with dsl.ParallelFor(items=[10, 20]) as b:
            with dsl.ParallelFor(items=[100, 200]) as c:
                one = number(value=c)
                two = number(value=b).after(one)
                number(value=a).after(two)
    return deep_total(values=dsl.Collected(one.output)).output


@dsl.pipeline(name='nested-loop-of-outputs')
def nested_loop_of_outputs() -> int:
    """The inner loop runs over what a task of the outer one made: ragged lists, the first one empty."""
    with dsl.ParallelFor(items=[0, 1, 3]) as size:
        made = numbers(count=size)
        with dsl.ParallelFor(items=made.output) as item:
            one = double(value=item)
    return deep_total(values=dsl.Collected(one.output)).output


@dsl.pipeline(name='loop-condition-loop')
def loop_condition_loop() -> List[str]:
    """A loop in a condition in a loop."""
    with dsl.ParallelFor(items=[1, 2, 3]) as outer:
        n = number(value=outer)
        with dsl.If(n.output >= 2):
            with dsl.ParallelFor(items=['x', 'y']) as inner:
                number(value=outer).after(echo(text=inner))
        done = echo(text=f'done {outer}')
    return listing(parts=dsl.Collected(done.output)).output


@dsl.pipeline(name='condition-loop-condition')
def condition_loop_condition(go: bool = True) -> str:
    """A condition in a loop in a condition, with a OneOf inside the loop."""
    with dsl.If(go == True):  # noqa: E712
        with dsl.ParallelFor(items=[1, 2, 3, 4]) as item:
            n = number(value=item)
            with dsl.If(n.output > 2):
                big = echo(text='big')
            with dsl.Else():
                small = echo(text='small')
            one = echo(text=dsl.OneOf(big.output, small.output))
        taken = join(parts=dsl.Collected(one.output))
    with dsl.Else():
        left = echo(text='not gone')
    return echo(text=dsl.OneOf(taken.output, left.output)).output


@dsl.pipeline(name='after-loop')
def after_loop() -> str:
    """A task after a loop, and a loop after a task and after a loop."""
    with dsl.ParallelFor(items=[1, 2]) as item:
        number(value=item)
    middle = echo(text='middle')
    with dsl.ParallelFor(items=[3, 4]) as item:
        one = double(value=item).after(middle)
    return echo(text='end').after(one).output


@dsl.component(base_image=IMAGE)
def interval(item: int) -> Dict[str, float]:
    """Says when it began and ended, on the machine's one clock."""
    import time

    begin = time.time()
    time.sleep(0.4)
    return {'begin': begin, 'end': time.time()}


@dsl.component(base_image=IMAGE)
def most_at_once(intervals: List[Dict[str, float]]) -> int:
    edges = sorted([(i['begin'], 1) for i in intervals] + [(i['end'], -1) for i in intervals])
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most


@dsl.pipeline(name='parallelism-one')
def parallelism_one() -> int:
    with dsl.ParallelFor(items=[1, 2, 3, 4], parallelism=1) as item:
        one = interval(item=item)
    return most_at_once(intervals=dsl.Collected(one.output)).output


@dsl.pipeline(name='parallelism-two')
def parallelism_two() -> bool:
    @dsl.component(base_image=IMAGE)
    def at_most_two(most: int) -> bool:
        return most <= 2

    with dsl.ParallelFor(items=[1, 2, 3, 4, 5, 6], parallelism=2) as item:
        one = interval(item=item)
    most = most_at_once(intervals=dsl.Collected(one.output))
    return at_most_two(most=most.output).output


@dsl.pipeline(name='loop-failure')
def loop_failure() -> List[str]:
    """One pass fails: the loop fails, its consumer does not start."""
    with dsl.ParallelFor(items=[1, 2, 3]) as item:
        n = number(value=item)
        with dsl.If(n.output == 2):
            fail(message='the second pass fails')
        one = echo(text=f'{item}')
    return listing(parts=dsl.Collected(one.output)).output


# Nested pipelines


@dsl.pipeline(name='leaf')
def leaf(text: str) -> str:
    return echo(text=text).output


@dsl.pipeline(name='branch')
def branch(text: str = 'from branch') -> str:
    return leaf(text=f'{text}!').output


@dsl.pipeline(name='trunk')
def trunk(text: str) -> str:
    return branch(text=text).output


@dsl.pipeline(name='four-deep')
def four_deep(text: str = 'down') -> str:
    return trunk(text=text).output


@dsl.pipeline(name='same-pipeline-twice')
def same_pipeline_twice() -> str:
    a = branch(text='a')
    b = branch(text='b')
    c = branch()

    @dsl.component(base_image=IMAGE)
    def three(a: str, b: str, c: str) -> str:
        return f'{a} {b} {c}'

    return three(a=a.output, b=b.output, c=c.output).output


@dsl.component(base_image=IMAGE)
def length_of(data: Input[Dataset]) -> int:
    with open(data.path) as f:
        return len(f.read())


@dsl.pipeline(name='made')
def made_pipeline(text: str) -> NamedTuple('Made', data=Dataset, length=int):
    data = write(text=text)
    length = length_of(data=data.outputs['out'])
    Made = NamedTuple('Made', [('data', Dataset), ('length', int)])
    return Made(data=data.outputs['out'], length=length.output)


@dsl.pipeline(name='loop-of-pipelines')
def loop_of_pipelines() -> NamedTuple('Out', texts=str, lengths=int):
    """Collected over a loop of nested pipelines, artifacts and parameters."""
    with dsl.ParallelFor(items=['one', 'three', 'eleven']) as item:
        made = made_pipeline(text=item)
    texts = read_all(data=dsl.Collected(made.outputs['data']))
    lengths = total(values=dsl.Collected(made.outputs['length']))
    Out = NamedTuple('Out', [('texts', str), ('lengths', int)])
    return Out(texts=texts.output, lengths=lengths.output)


@dsl.pipeline(name='collecting')
def collecting(items: List[str]) -> List[str]:
    with dsl.ParallelFor(items=items) as item:
        one = echo(text=item)
    return dsl.Collected(one.output)


@dsl.pipeline(name='collected-as-output')
def collected_as_output() -> List[str]:
    """A nested pipeline whose output is a Collected, and Collected as the root's own output."""
    inner = collecting(items=['p', 'q'])
    with dsl.ParallelFor(items=inner.output) as item:
        one = echo(text=f'{item}{item}')
    return dsl.Collected(one.output)


# Ordering


@dsl.pipeline(name='diamond')
def diamond(width: int = 6) -> int:
    """Fan-out to six, fan-in, with extra ordering edges."""
    first = number(value=width)
    arms = [double(value=first.output) for _ in range(6)]
    last = number(value=first.output).after(*arms)

    @dsl.component(base_image=IMAGE)
    def add(a: int, b: int, c: int) -> int:
        return a + b + c

    return add(a=arms[0].output, b=arms[5].output, c=last.output).output


@dsl.pipeline(name='failure-stops-dependents')
def failure_stops_dependents() -> str:
    bad = fail(message='this step always fails')
    after = echo(text=bad.output)
    return echo(text=after.output).output


# Exit handlers


@dsl.component(base_image=IMAGE)
def check_status(
    expected: str, task: str, status: dsl.PipelineTaskFinalStatus
) -> NamedTuple('Status', state=str, task=str):
    """Fails, and so shows in the task's state, unless the final status is exactly what is expected."""
    print(status)
    assert status.state == expected, status.state
    assert status.pipeline_task_name == task, status.pipeline_task_name
    assert status.pipeline_job_resource_name, 'no run name'
    assert bool(status.error_message) == (expected == 'FAILED'), status.error_message
    Status = NamedTuple('Status', [('state', str), ('task', str)])
    return Status(state=status.state, task=status.pipeline_task_name)


@dsl.pipeline(name='exit-handler-status')
def exit_handler_status(failing: bool = False, expected: str = 'COMPLETE'):
    exit_task = check_status(expected=expected, task='exit-handler-1')
    with dsl.ExitHandler(exit_task):
        first = echo(text='working')
        second = fail_if(condition=failing, message='the work failed').after(first)
        echo(text=second.output)


@dsl.component(base_image=IMAGE)
def plain_exit(text: str):
    print(text)


@dsl.pipeline(name='two-steps')
def two_steps(text: str):
    first = echo(text=text)
    plain_exit(text=first.output)


@dsl.pipeline(name='pipeline-as-exit-task')
def pipeline_as_exit_task(failing: bool = True):
    with dsl.ExitHandler(two_steps(text='cleaning up')):
        fail_if(condition=failing, message='the work failed')


@dsl.pipeline(name='two-exit-handlers')
def two_exit_handlers(failing: bool = False):
    first_exit = plain_exit(text='first handler')
    with dsl.ExitHandler(first_exit, name='first'):
        fail_if(condition=failing, message='the first part failed')
    second_exit = plain_exit(text='second handler')
    with dsl.ExitHandler(second_exit, name='second'):
        echo(text='second part')


@dsl.pipeline(name='exit-handler-with-flow')
def exit_handler_with_flow(items: List[int] = [1, 2, 3]):
    """Loops and conditions inside an exit handler, one pass failing; the exit task sees the failure."""
    exit_task = check_status(expected='FAILED', task='exit-handler-1')
    with dsl.ExitHandler(exit_task):
        with dsl.ParallelFor(items=items) as item:
            n = number(value=item)
            with dsl.If(n.output == 3):
                fail(message='three is too much')


@dsl.pipeline(name='failing-exit-task')
def failing_exit_task():
    """The work succeeds, the exit task does not: the run fails."""
    with dsl.ExitHandler(fail(message='the exit task fails')):
        echo(text='working')


# Ignoring failures


@dsl.component(base_image=IMAGE)
def with_default(text: str = 'nothing came') -> str:
    print(text)
    return text


@dsl.pipeline(name='ignore-upstream-failure')
def ignore_upstream_failure(failing: bool = True):
    """The run stays failed, the clean-up runs, with its default where no value came."""
    bad = fail_if(condition=failing, message='came')
    with_default(text=bad.output).ignore_upstream_failure()


@dsl.pipeline(name='ignore-upstream-failure-after')
def ignore_upstream_failure_after():
    bad = fail(message='fails')
    cleaned = echo(text='cleaning').after(bad).ignore_upstream_failure()
    echo(text=cleaned.output)


# Retries


@dsl.component(base_image=IMAGE)
def succeed_at(attempt: int) -> str:
    import os

    index = int(os.environ['KFP_RETRY_INDEX'])
    if index < attempt:
        raise SystemExit(f'attempt {index} fails')
    return f'attempt={index}'


@dsl.pipeline(name='retry')
def retry(attempt: int = 2) -> str:
    task = succeed_at(attempt=attempt)
    task.set_retry(num_retries=2, backoff_duration='0s', backoff_factor=1)
    return task.output


@dsl.pipeline(name='retry-backoff')
def retry_backoff() -> bool:
    """Waits of at least one and two seconds lie between the three attempts."""

    @dsl.component(base_image=IMAGE)
    def now() -> float:
        import time

        return time.time()

    @dsl.component(base_image=IMAGE)
    def took(begin: float, attempt: int) -> float:
        import os
        import time

        if int(os.environ['KFP_RETRY_INDEX']) < attempt:
            raise SystemExit('not yet')
        return time.time() - begin

    @dsl.component(base_image=IMAGE)
    def within(seconds: float, low: float) -> bool:
        return seconds >= low

    begin = now().set_caching_options(False)
    end = took(begin=begin.output, attempt=2).set_caching_options(False)
    end.set_retry(num_retries=2, backoff_duration='1s', backoff_factor=2, backoff_max_duration='60s')
    return within(seconds=end.output, low=3.0).output


@dsl.pipeline(name='retry-in-loop')
def retry_in_loop() -> List[str]:
    with dsl.ParallelFor(items=[0, 1, 2]) as item:
        one = succeed_at(attempt=item).set_retry(num_retries=2, backoff_duration='0s')
    return listing(parts=dsl.Collected(one.output)).output


@dsl.component(base_image=IMAGE)
def once(workspace: str) -> str:
    import os

    mark = os.path.join(workspace, 'tried')
    if not os.path.exists(mark):
        open(mark, 'w').close()
        raise SystemExit('the first try fails')
    return 'second try'


@dsl.pipeline(name='inner')
def tried(workspace: str) -> str:
    first = echo(text='inner')
    return once(workspace=workspace).after(first).output


@dsl.pipeline(
    name='retry-of-pipeline',
    pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size='10Mi')),
)
def retry_of_pipeline() -> str:
    """A nested pipeline is tried again; what tells the tries apart is a file in the run's workspace."""
    task = tried(workspace=dsl.WORKSPACE_PATH_PLACEHOLDER)
    task.set_retry(num_retries=1, backoff_duration='0s')
    return task.output


PIPELINES = {
    f'{pipeline.name.replace("-", "_")}.yaml': pipeline
    for pipeline in (
        if_elif_else,
        oneof_artifacts,
        oneof_as_output,
        comparisons,
        conditions_in_conditions,
        condition_between_outputs,
        loop_over_constants,
        loop_over_input,
        loop_over_output,
        loop_over_structs,
        nested_loops,
        nested_loops_three,
        nested_loop_of_outputs,
        loop_condition_loop,
        condition_loop_condition,
        after_loop,
        parallelism_one,
        parallelism_two,
        loop_failure,
        four_deep,
        same_pipeline_twice,
        loop_of_pipelines,
        collected_as_output,
        diamond,
        failure_stops_dependents,
        exit_handler_status,
        pipeline_as_exit_task,
        two_exit_handlers,
        exit_handler_with_flow,
        failing_exit_task,
        ignore_upstream_failure,
        ignore_upstream_failure_after,
        retry,
        retry_backoff,
        retry_in_loop,
        retry_of_pipeline,
    )
}
