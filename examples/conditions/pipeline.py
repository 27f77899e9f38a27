"""Take one of three branches, and go on with the value of the one that was taken."""
from kfp import dsl


@dsl.component(base_image='python:3.11')
def classify(temperature: int) -> str:
    return 'cold' if temperature < 10 else 'mild' if temperature < 25 else 'hot'


@dsl.component(base_image='python:3.11')
def advise(text: str) -> str:
    print(text)
    return text


@dsl.component(base_image='python:3.11')
def publish(advice: str) -> str:
    return f'Today: {advice}'


@dsl.pipeline(name='conditions')
def conditions(temperature: int = 18) -> str:
    kind = classify(temperature=temperature)
    with dsl.If(kind.output == 'cold'):
        cold = advise(text='take a coat')
    with dsl.Elif(kind.output == 'hot'):
        hot = advise(text='take water')
    with dsl.Else():
        mild = advise(text='take nothing')
    return publish(advice=dsl.OneOf(cold.output, hot.output, mild.output)).output


PIPELINES = {'pipeline.yaml': conditions}
