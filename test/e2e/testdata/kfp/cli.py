"""Every command of the kfp CLI that speaks to a server, against a running daemon."""

import json
import os
import re
import subprocess
import sys

from common import FOLDER, HOST, TOKEN, greet, package
from kfp.cli import cli

tried = set()


def kfp(*args, output="json"):
    """Runs a command and returns what it printed, as JSON where it is."""
    tried.add(" ".join(args[:2]))
    done = subprocess.run([os.path.join(os.path.dirname(sys.executable), "kfp"), "--endpoint", HOST, "--existing-token", TOKEN, "--output", output, *args],
                          capture_output=True, text=True, env={**os.environ, "HOME": FOLDER}, input="y\n")
    assert done.returncode == 0, f"kfp {' '.join(args)}: {done.stdout}\n{done.stderr}"
    start = re.search(r"^[\[{]", done.stdout, re.MULTILINE)
    if output != "json" or not start:
        return done.stdout
    return json.JSONDecoder().raw_decode(done.stdout[start.start():])[0]



def named(listed, kind, name):
    """The id of the one that has this name."""
    (found,) = [one[f"{kind}_id"] for one in listed if one["display_name"] == name]
    return found


file = package(greet)
kfp("experiment", "create", "cli", "-d", "by hand")
exp = named(kfp("experiment", "list"), "experiment", "cli")
assert "cli" in kfp("experiment", "list", output="table")
kfp("experiment", "get", exp)
kfp("experiment", "archive", "--experiment-id", exp)
kfp("experiment", "unarchive", "--experiment-name", "cli")

kfp("pipeline", "create", "-p", "cli-pipe", "-d", "d", file)
pipe = named(kfp("pipeline", "list"), "pipeline", "cli-pipe")
kfp("pipeline", "create-version", file, "-v", "second", "-n", "cli-pipe")
versions = kfp("pipeline", "list-versions", pipe)
assert len(versions) == 2, versions
version = named(versions, "pipeline_version", "second")
kfp("pipeline", "get", pipe)
kfp("pipeline", "get-version", pipe, version)

kfp("run", "create", "-e", "cli", "-r", "cli-run", "-f", file, "-w", "-t", "120", "word=cli")
kfp("run", "create", "-e", "cli", "-r", "by-name", "-n", "cli-pipe", "-v", version)
listed = kfp("run", "list", "-e", exp)
assert len(listed) == 2, listed
run = named(listed, "run", "cli-run")
got = kfp("run", "get", run)
assert "SUCCEEDED" in json.dumps(got) or "Succeeded" in json.dumps(got), got
kfp("run", "get", run, "-d")
kfp("run", "archive", run)
kfp("run", "unarchive", run)
kfp("run", "delete", run)

kfp("recurring-run", "create", "--experiment-name", "cli", "--job-name", "often", "--cron-expression", "0 0 0 1 1 *", "--pipeline-id", pipe, "--version-id", version)
listed = kfp("recurring-run", "list", "-e", exp)
job = named(listed, "recurring_run", "often")
kfp("recurring-run", "get", job)
kfp("recurring-run", "disable", job)
kfp("recurring-run", "enable", job)
kfp("recurring-run", "delete", job)

kfp("pipeline", "delete-version", pipe, version)
kfp("pipeline", "delete-version", pipe, named(versions, "pipeline_version", "cli-pipe"))
kfp("pipeline", "delete", pipe)
kfp("experiment", "delete", exp)

every = set()
for group, command in cli.cli.commands.items():
    if group in ("pipeline", "run", "experiment", "recurring-run"):
        every |= {f"{group} {name}" for name in command.commands}
missing = every - tried
assert not missing, f"kfp has commands that were not tried: {sorted(missing)}"
print("ok")
