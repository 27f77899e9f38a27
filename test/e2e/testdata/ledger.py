"""A chain and a fan-out whose steps write what they did into the run's workspace.

The last step gives the ledger back, so a step that ran twice, or not at all, shows in the output.
Compile with `python ledger.py`.
"""
from kfp import compiler, dsl


@dsl.container_component
def enter(name: str, after: str, entry: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image='alpine:latest',
        command=['sh', '-ec', '''
mkdir -p "$(dirname "$2")" /kfp-workspace/ledger
sleep 0.3
echo "$0" >> /kfp-workspace/ledger/all
printf %s "$0" > "$2"
'''],
        args=[name, after, entry])


# The published form of a container component takes its arguments after the command: $0 is the name.
@dsl.container_component
def read(after: list, ledger: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image='alpine:latest',
        command=['sh', '-ec', '''
mkdir -p "$(dirname "$1")"
sort /kfp-workspace/ledger/all | tr '\\n' ' ' > "$1"
'''],
        args=[after, ledger])


@dsl.pipeline(
    name='ledger',
    pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size='1Gi')))
def ledger() -> str:
    first = enter(name='a', after='').set_caching_options(False)
    second = enter(name='b', after=first.output).set_caching_options(False)
    with dsl.ParallelFor(['c', 'd', 'e', 'f']) as item:
        middle = enter(name=item, after=second.output).set_caching_options(False)
    last = read(after=dsl.Collected(middle.output)).set_caching_options(False)
    return last.output


if __name__ == '__main__':
    compiler.Compiler().compile(ledger, __file__.replace('.py', '.yaml'))
