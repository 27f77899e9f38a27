"""Report how the work ended, whether it succeeded or failed.

    skiff run examples/exit-handler/pipeline.yaml              # the work succeeds
    skiff run examples/exit-handler/pipeline.yaml -p fail=true # it fails; the report is made all the same
"""
from kfp import dsl


@dsl.component(base_image='python:3.11')
def work(fail: bool) -> str:
    if fail:
        raise SystemExit('asked to fail')
    return 'done'


@dsl.component(base_image='python:3.11')
def report(status: dsl.PipelineTaskFinalStatus):
    print(f'{status.pipeline_task_name} ended as {status.state}')
    if status.error_message:
        print(f'because: {status.error_message}')


@dsl.pipeline(name='exit-handler')
def exit_handler(fail: bool = False):
    with dsl.ExitHandler(report()):
        work(fail=fail)


PIPELINES = {'pipeline.yaml': exit_handler}
