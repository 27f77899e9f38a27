"""A script that was written for Kubeflow Pipelines, pointed at skiff.

    skiff up &
    python3 examples/kfp-client/client.py http://127.0.0.1:7433

Nothing in it is skiff's: it needs the package kfp alone. The user who runs the
daemon sends no token; anybody else sets KFP_TOKEN.
"""

import os
import pathlib
import sys

import kfp

host = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7433"
package = pathlib.Path(__file__).parent.parent / "hello" / "pipeline.yaml"

client = kfp.Client(host=host, existing_token=os.environ.get("KFP_TOKEN"))
experiment = client.create_experiment("greetings")
run = client.create_run_from_pipeline_package(
    str(package), arguments={"recipient": "kfp"}, experiment_name="greetings", enable_caching=False
)
done = client.wait_for_run_completion(run.run_id, timeout=300, sleep_duration=1)
print("run", run.run_id, done.state)
for task in done.run_details.task_details:
    print("task", task.display_name, task.state)
runs = client.list_runs(experiment_id=experiment.experiment_id, sort_by="created_at desc")
print("runs in the experiment:", len(runs.runs))
