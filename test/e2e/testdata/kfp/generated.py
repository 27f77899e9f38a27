"""Every method of the generated clients (kfp_server_api) against a running daemon."""

import inspect
import json
import os

import kfp_server_api as api
from common import FOLDER, HOST, TOKEN, greet, obedient, package, refused, Recorder
import yaml

config = api.Configuration(host=HOST)
config.api_key["authorization"], config.api_key_prefix["authorization"] = TOKEN, "Bearer"
transport = api.ApiClient(config)
kinds = [k for _, k in inspect.getmembers(api, inspect.isclass) if k.__name__.endswith("Api")]
apis = {k.__name__: Recorder(k(transport)) for k in kinds}
auth, filters, experiments, health = (apis[n] for n in ("AuthServiceApi", "DummyFilterServiceApi", "ExperimentServiceApi", "HealthzServiceApi"))
pipelines, uploads, recurring = apis["PipelineServiceApi"], apis["PipelineUploadServiceApi"], apis["RecurringRunServiceApi"]
report, runs, visualizations = apis["ReportServiceApi"], apis["RunServiceApi"], apis["VisualizationServiceApi"]

assert health.healthz_service_get_healthz().multi_user is False
assert auth.auth_service_authorize(namespace="default", resources="VIEWERS", verb="GET") == {}
filters.dummy_filter_service_get_filter()
refused(501, visualizations.visualization_service_create_visualization_v1, "default", api.V2beta1Visualization())
refused(501, report.report_service_report_workflow, json.dumps({}))
refused(501, report.report_service_report_scheduled_workflow, json.dumps({}))

exp = experiments.experiment_service_create_experiment(api.V2beta1Experiment(display_name="generated"))
refused(409, experiments.experiment_service_create_experiment, api.V2beta1Experiment(display_name="generated"))
refused(400, experiments.experiment_service_create_experiment, api.V2beta1Experiment(display_name=""))
assert experiments.experiment_service_get_experiment(exp.experiment_id).display_name == "generated"
experiments.experiment_service_archive_experiment(exp.experiment_id)
experiments.experiment_service_unarchive_experiment(exp.experiment_id)
assert experiments.experiment_service_list_experiments(page_size=1, sort_by="name").next_page_token

file = package(greet)
spec = yaml.safe_load(open(file))
first = uploads.upload_pipeline(file, name="gen", display_name="Generated", description="d", tags=json.dumps({"team": "a"}))
assert first.tags == {"team": "a"} and first.name == "gen" and first.display_name == "Generated", first
refused(400, uploads.upload_pipeline, file, name="tagged", tags=json.dumps({"team": "x" * 64}))
version = uploads.upload_pipeline_version(file, name="v2", pipelineid=first.pipeline_id, tags=json.dumps({"n": "2"}))
assert version.tags == {"n": "2"}, version
broken = os.path.join(FOLDER, "broken.yaml")
open(broken, "w").write("pipelineInfo: {}\n")
refused(400, uploads.upload_pipeline, broken, name="broken")
assert pipelines.pipeline_service_get_pipeline_by_name("gen").pipeline_id == first.pipeline_id
assert pipelines.pipeline_service_get_pipeline(first.pipeline_id).name == "gen"
bare = pipelines.pipeline_service_create_pipeline(api.V2beta1Pipeline(name="bare", display_name="Bare"))
refused(404, runs.run_service_create_run, api.V2beta1Run(display_name="x", pipeline_version_reference=api.V2beta1PipelineVersionReference(pipeline_id=bare.pipeline_id)))
made = pipelines.pipeline_service_create_pipeline_version(bare.pipeline_id, api.V2beta1PipelineVersion(name="one", pipeline_spec=spec))
assert made.pipeline_spec["pipelineInfo"]["name"] == "greet", made
both = pipelines.pipeline_service_create_pipeline_and_version(api.V2beta1CreatePipelineAndVersionRequest(
    pipeline=api.V2beta1Pipeline(name="both"), pipeline_version=api.V2beta1PipelineVersion(name="one", pipeline_spec=spec)))
refused(400, pipelines.pipeline_service_create_pipeline_and_version, api.V2beta1CreatePipelineAndVersionRequest(
    pipeline=api.V2beta1Pipeline(name="url"), pipeline_version=api.V2beta1PipelineVersion(name="one", package_url=api.V2beta1Url(pipeline_url=HOST + "/livez"))))
changed = pipelines.pipeline_service_update_pipeline(bare.pipeline_id, api.V2beta1Pipeline(display_name="Less bare", tags={"a": "b"}))
assert changed.display_name == "Less bare" and changed.tags == {"a": "b"} and changed.name == "bare", changed
changed = pipelines.pipeline_service_update_pipeline_version(bare.pipeline_id, made.pipeline_version_id, api.V2beta1PipelineVersion(description="new"))
assert changed.description == "new" and changed.display_name == "one", changed
assert pipelines.pipeline_service_get_pipeline_version(bare.pipeline_id, made.pipeline_version_id).description == "new"
assert len(pipelines.pipeline_service_list_pipeline_versions(first.pipeline_id).pipeline_versions) == 2
listed = pipelines.pipeline_service_list_pipelines(sort_by="name desc", page_size=2)
assert [p.name for p in listed.pipelines] == ["gen", "both"] and listed.total_size == 3, listed
more = pipelines.pipeline_service_list_pipelines(page_token=listed.next_page_token, page_size=2)
assert [p.name for p in more.pipelines] == ["bare"] and not more.next_page_token, more

run = runs.run_service_create_run(api.V2beta1Run(display_name="gen run", experiment_id=exp.experiment_id, description="why",
    pipeline_spec={"pipeline_spec": spec}, runtime_config=api.V2beta1RuntimeConfig(parameters={"word": "x"})))
assert run.description == "why" and run.state == "PENDING", run
import kfp
client = kfp.Client(host=HOST, existing_token=TOKEN)
done = client.wait_for_run_completion(run.run_id, 120, 0.2)
assert done.state == "SUCCEEDED"
assert runs.run_service_get_run(run.run_id, experiment_id=exp.experiment_id).state == "SUCCEEDED"
refused(404, runs.run_service_get_run, run.run_id, experiment_id="other")
assert runs.run_service_list_runs(experiment_id=exp.experiment_id).total_size == 1
refused(400, runs.run_service_terminate_run, run.run_id)
refused(409, runs.run_service_retry_run, run.run_id)
bad = runs.run_service_create_run(api.V2beta1Run(display_name="bad", pipeline_spec=yaml.safe_load(open(package(obedient)))))
assert client.wait_for_run_completion(bad.run_id, 120, 0.2).state == "FAILED"
runs.run_service_retry_run(bad.run_id)
assert client.wait_for_run_completion(bad.run_id, 120, 0.2).state == "SUCCEEDED"
runs.run_service_archive_run(run.run_id)
runs.run_service_unarchive_run(run.run_id)
refused(400, runs.run_service_create_run, api.V2beta1Run(display_name="none"))
refused(404, runs.run_service_create_run, api.V2beta1Run(display_name="x", experiment_id="none", pipeline_spec=spec))

rec = recurring.recurring_run_service_create_recurring_run(api.V2beta1RecurringRun(display_name="r", experiment_id=exp.experiment_id, mode="DISABLE",
    max_concurrency="1", trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron="@every 1h")),
    pipeline_version_reference=api.V2beta1PipelineVersionReference(pipeline_id=first.pipeline_id)))
assert rec.pipeline_version_reference.pipeline_version_id is None, "no version is pinned"
recurring.recurring_run_service_enable_recurring_run(rec.recurring_run_id)
recurring.recurring_run_service_disable_recurring_run(rec.recurring_run_id)
assert recurring.recurring_run_service_get_recurring_run(rec.recurring_run_id).status == "DISABLED"
assert len(recurring.recurring_run_service_list_recurring_runs(experiment_id=exp.experiment_id).recurring_runs) == 1
recurring.recurring_run_service_delete_recurring_run(rec.recurring_run_id, propagation_policy="ORPHAN")

runs.run_service_delete_run(run.run_id)
refused(404, runs.run_service_get_run, run.run_id)
pipelines.pipeline_service_delete_pipeline_version(bare.pipeline_id, made.pipeline_version_id)
pipelines.pipeline_service_delete_pipeline(bare.pipeline_id)
refused(400, pipelines.pipeline_service_delete_pipeline, first.pipeline_id)
pipelines.pipeline_service_delete_pipeline(first.pipeline_id, cascade=True)
pipelines.pipeline_service_delete_pipeline(both.pipeline_id, cascade=True)
experiments.experiment_service_delete_experiment(exp.experiment_id)

for name, recorder in apis.items():
    methods = {m for m, _ in inspect.getmembers(type(recorder.target), inspect.isfunction) if not m.startswith("_") and not m.endswith("_with_http_info")}
    missing = methods - recorder.called
    assert not missing, f"{name} has methods that were not tried: {sorted(missing)}"
print("ok")
