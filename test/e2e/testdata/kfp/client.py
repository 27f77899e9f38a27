"""Every public method of kfp.Client against a running daemon."""

import json
import os
import time
import warnings

import kfp_server_api
from common import FOLDER, client, greet, obedient, package, public, refused, sleeper, Recorder

real = client()
c = Recorder(real)
# These touch the user's home or a browser, or are the same as others under a deprecated name that calls
# the new one; they are tried all the same.
os.environ["HOME"] = FOLDER

health = c.get_kfp_healthz()
assert health.multi_user is False and health.pipeline_store, health
assert c.get_user_namespace() == "", c.get_user_namespace()

# Experiments.
exp = c.create_experiment("first", description="one")
assert exp.experiment_id and exp.display_name == "first" and exp.description == "one", exp
assert exp.namespace == "default" and exp.storage_state == "AVAILABLE", exp
assert c.create_experiment("first").experiment_id == exp.experiment_id, "an experiment is got where it exists"
assert c.get_experiment(experiment_id=exp.experiment_id).display_name == "first"
assert c.get_experiment(experiment_name="first").experiment_id == exp.experiment_id
listed = c.list_experiments(sort_by="created_at desc")
assert [e.display_name for e in listed.experiments] == ["first", "Default"], listed
assert listed.total_size == 2, listed
c.archive_experiment(exp.experiment_id)
assert c.get_experiment(experiment_id=exp.experiment_id).storage_state == "ARCHIVED"
c.unarchive_experiment(exp.experiment_id)
assert c.get_experiment(experiment_id=exp.experiment_id).storage_state == "AVAILABLE"
refused(404, c.get_experiment, experiment_id="00000000-0000-0000-0000-000000000000")
doomed = c.create_experiment("doomed")
c.delete_experiment(doomed.experiment_id)
refused(404, c.get_experiment, experiment_id=doomed.experiment_id)

# Pipelines and versions.
file = package(greet)
pipe = c.upload_pipeline(file, pipeline_name="Greet: the 1st", description="d")
assert pipe.display_name == "Greet: the 1st" and pipe.pipeline_id and pipe.description == "d", pipe
refused(409, c.upload_pipeline, file, pipeline_name="Greet: the 1st")
from_func = c.upload_pipeline_from_pipeline_func(greet, pipeline_name="from-func")
assert c.get_pipeline_id("Greet: the 1st") == pipe.pipeline_id
assert c.get_pipeline_id("nothing") is None
assert c.get_pipeline(pipe.pipeline_id).pipeline_id == pipe.pipeline_id
assert {p.display_name for p in c.list_pipelines().pipelines} == {"Greet: the 1st", "from-func"}
second = c.upload_pipeline_version(file, "v2", pipeline_id=pipe.pipeline_id, description="newer")
third = c.upload_pipeline_version_from_pipeline_func(greet, "v3", pipeline_id=pipe.pipeline_id)
refused(409, c.upload_pipeline_version, file, "v2", pipeline_id=pipe.pipeline_id)
versions = c.list_pipeline_versions(pipe.pipeline_id, sort_by="created_at desc")
assert [v.display_name for v in versions.pipeline_versions] == ["v3", "v2", "Greet: the 1st"], versions
got = c.get_pipeline_version(pipe.pipeline_id, second.pipeline_version_id)
assert got.pipeline_spec["pipelineInfo"]["name"] == "greet", got
c.delete_pipeline_version(pipe.pipeline_id, third.pipeline_version_id)
refused(404, c.get_pipeline_version, pipe.pipeline_id, third.pipeline_version_id)
c.delete_pipeline_version(from_func.pipeline_id, c.list_pipeline_versions(from_func.pipeline_id).pipeline_versions[0].pipeline_version_id)
c.delete_pipeline(from_func.pipeline_id)
refused(404, c.get_pipeline, from_func.pipeline_id)
refused(400, c.delete_pipeline, pipe.pipeline_id)

# Runs, from every source.
by_version = c.run_pipeline(exp.experiment_id, "by version", pipeline_id=pipe.pipeline_id, version_id=second.pipeline_version_id, params={"word": "hi"})
assert by_version.pipeline_version_reference.pipeline_version_id == second.pipeline_version_id, by_version
# The client itself asks for both ids; the server takes the newest version where one is left out.
by_newest = real._run_api.run_service_create_run(kfp_server_api.V2beta1Run(
    display_name="by pipeline", experiment_id=exp.experiment_id,
    pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(pipeline_id=pipe.pipeline_id)))
assert by_newest.pipeline_version_reference.pipeline_version_id == second.pipeline_version_id, "the newest version"
by_func = c.create_run_from_pipeline_func(greet, arguments={"word": "func"}, run_name="by func", experiment_name="first", enable_caching=False)
by_file = c.create_run_from_pipeline_package(file, run_name="by file", experiment_name="first")
done = c.wait_for_run_completion(by_version.run_id, timeout=120, sleep_duration=0.2)
assert done.state == "SUCCEEDED" and done.experiment_id == exp.experiment_id, done
assert [s.state for s in done.state_history] == ["PENDING", "RUNNING", "SUCCEEDED"], done.state_history
assert done.finished_at and done.created_at and done.runtime_config.parameters == {"word": "hi"}, done
task = done.run_details.task_details[0]
assert task.display_name == "say" and task.state == "SUCCEEDED" and task.pod_name and task.start_time, task
by_func.wait_for_run_completion(timeout=120)
finished = c.wait_for_run_completion(by_file.run_id, timeout=120, sleep_duration=0.2)
assert finished.pipeline_spec["pipelineInfo"]["name"] == "greet", finished
c.wait_for_run_completion(by_newest.run_id, timeout=120, sleep_duration=0.2)
assert c.get_run(by_version.run_id).display_name == "by version"
assert c.get_experiment(experiment_id=exp.experiment_id).last_run_created_at

# Pages: in both orders, each run once.
names = {"by version", "by pipeline", "by func", "by file"}
for order in ("", "created_at desc", "display_name", "finished_at desc", "metric:accuracy desc"):
    seen, token = [], ""
    while True:
        page = c.list_runs(experiment_id=exp.experiment_id, page_size=1, page_token=token, sort_by=order)
        assert page.total_size == 4, page.total_size
        seen += [r.display_name for r in page.runs]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == 4 and set(seen) == names, (order, seen)
filtered = c.list_runs(filter='{"predicates":[{"operation":9,"key":"display_name","stringValue":"VERS"},{"operation":1,"key":"state","stringValue":"SUCCEEDED"}]}')
assert [r.display_name for r in filtered.runs] == ["by version"], filtered
refused(400, c.list_runs, filter='{"predicates":[{"operation":1,"key":"nothing","stringValue":"x"}]}')
refused(400, c.list_runs, sort_by="nothing")
refused(400, c.list_runs, page_token="garbage")

c.archive_run(by_version.run_id)
assert c.get_run(by_version.run_id).storage_state == "ARCHIVED"
away = '{"predicates":[{"operation":1,"key":"storage_state","stringValue":"ARCHIVED"}]}'
assert [r.run_id for r in c.list_runs(filter=away).runs] == [by_version.run_id]
c.unarchive_run(by_version.run_id)
assert c.get_run(by_version.run_id).storage_state == "AVAILABLE"
long = c.run_pipeline(exp.experiment_id, "long", package(sleeper))
refused(400, c.delete_run, long.run_id)
c.terminate_run(long.run_id)
deadline = time.time() + 60
while c.get_run(long.run_id).state != "CANCELED":
    assert time.time() < deadline, "a run that was terminated does not end"
    time.sleep(0.1)
c.delete_run(long.run_id)
refused(404, c.get_run, long.run_id)
refused(400, c.run_pipeline, exp.experiment_id, "bad", file, params={"wrong": 1})

# A failed run is retried within itself; the client has no method of its own.
bad = c.run_pipeline(exp.experiment_id, "obedient", package(obedient))
failed = c.wait_for_run_completion(bad.run_id, timeout=120, sleep_duration=0.2)
assert failed.state == "FAILED" and failed.error.message, failed
kept = {t.display_name: t for t in failed.run_details.task_details}
real._run_api.run_service_retry_run(bad.run_id)
mended = c.wait_for_run_completion(bad.run_id, timeout=120, sleep_duration=0.2)
assert mended.state == "SUCCEEDED", mended
after = {t.display_name: t for t in mended.run_details.task_details}
assert after["say"].pod_name == kept["say"].pod_name, "what succeeded is kept"
assert after["obey"].pod_name != kept["obey"].pod_name, "what failed ran again"

# Recurring runs; the schedule lies in the future, so that none makes a run here.
start = "2999-01-01T00:00:00Z"
cron = c.create_recurring_run(exp.experiment_id, "cron", cron_expression="0 0 9 ? * 2-6", start_time=start, pipeline_id=pipe.pipeline_id, version_id=second.pipeline_version_id, enabled=False, no_catchup=True, max_concurrency=3)
assert cron.trigger.cron_schedule.cron == "0 0 9 ? * 2-6" and cron.status == "DISABLED" and cron.no_catchup, cron
assert cron.max_concurrency == "3" and cron.mode == "DISABLE", cron
every = c.create_recurring_run(exp.experiment_id, "every", interval_second=3600, start_time=start, pipeline_package_path=file, params={"word": "x"})
assert every.trigger.periodic_schedule.interval_second == "3600" and every.status == "ENABLED", every
assert {r.display_name for r in c.list_recurring_runs(experiment_id=exp.experiment_id).recurring_runs} == {"cron", "every"}
assert c.get_recurring_run(cron.recurring_run_id).display_name == "cron"
c.enable_recurring_run(cron.recurring_run_id)
assert c.get_recurring_run(cron.recurring_run_id).status == "ENABLED"
c.disable_recurring_run(cron.recurring_run_id)
assert c.get_recurring_run(cron.recurring_run_id).status == "DISABLED"
c.enable_job(cron.recurring_run_id)
c.disable_job(cron.recurring_run_id)
refused(400, c.create_recurring_run, exp.experiment_id, "bad", cron_expression="nonsense", pipeline_package_path=file)
refused(400, c.create_recurring_run, exp.experiment_id, "bad", interval_second=60, max_concurrency=11, pipeline_package_path=file)

# One that is due by the second makes its runs, in its experiment and with its parameters.
often = c.create_recurring_run(exp.experiment_id, "often", interval_second=1, pipeline_id=pipe.pipeline_id, version_id=second.pipeline_version_id, params={"word": "no [[Index]]"}, no_catchup=True)
of_often = json.dumps({"predicates": [{"operation": 1, "key": "recurring_run_id", "stringValue": often.recurring_run_id}]})
deadline = time.time() + 60
while not c.list_runs(experiment_id=exp.experiment_id, filter=of_often).runs:
    assert time.time() < deadline, "a recurring run makes no run"
    time.sleep(0.1)
c.disable_recurring_run(often.recurring_run_id)
first = c.list_runs(experiment_id=exp.experiment_id, filter=of_often, sort_by="created_at").runs[0]
made = c.wait_for_run_completion(first.run_id, timeout=120, sleep_duration=0.2)
assert made.state == "SUCCEEDED" and made.recurring_run_id == often.recurring_run_id, made
assert made.display_name == "often-1" and made.runtime_config.parameters == {"word": "no 1"}, made
assert made.pipeline_version_reference.pipeline_version_id == second.pipeline_version_id, made
assert made.scheduled_at.microsecond == 0 and made.scheduled_at > c.get_recurring_run(often.recurring_run_id).created_at, made
assert c.get_recurring_run(often.recurring_run_id).error is None
settled = len(c.list_runs(experiment_id=exp.experiment_id, filter=of_often, page_size=100).runs)
time.sleep(1.5)
assert len(c.list_runs(experiment_id=exp.experiment_id, filter=of_often, page_size=100).runs) == settled, "one that is disabled makes none"
c.delete_recurring_run(often.recurring_run_id)
refused(404, c.get_recurring_run, often.recurring_run_id)
assert c.get_run(first.run_id).state == "SUCCEEDED", "its runs stay"

# What is archived takes its runs and schedules along.
c.archive_experiment(exp.experiment_id)
assert {r.storage_state for r in c.list_runs(experiment_id=exp.experiment_id).runs} == {"ARCHIVED"}
assert c.get_recurring_run(every.recurring_run_id).status == "DISABLED"
refused(400, c.run_pipeline, exp.experiment_id, "into the archive", file)
c.delete_recurring_run(cron.recurring_run_id)
c.delete_job(every.recurring_run_id)
assert c.list_recurring_runs().recurring_runs is None

c.set_user_namespace("other")
assert c.get_user_namespace() == "other"
os.remove(os.path.join(real._LOCAL_KFP_CONTEXT)) if os.path.exists(real._LOCAL_KFP_CONTEXT) else None

missing = public(type(real)) - c.called
assert not missing, f"kfp.Client has methods that were not tried: {sorted(missing)}"
print("ok")
