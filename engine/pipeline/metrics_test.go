package pipeline

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/skiff"
)

// TestMetricsOfReusedResults: a run has the numbers of all its steps, whoever
// reported them: those of a step that was taken from the cache or from an earlier
// run count as its own do, also where a controller that begins anew or a retry
// reads them back.
func TestMetricsOfReusedResults(t *testing.T) {
	const model, read = "system.Model, schemaVersion: 0.0.1}, metadata: {by: hand}", "cat out"
	measured := func(command string) func(*Submission) {
		change := edited(t, "cached", model, "system.Metrics, schemaVersion: 0.0.1}, metadata: {accuracy: 0.75}", "system.Model", "system.Metrics",
			"artifacts: {model: {artifactType: {schemaTitle: system.Model", "artifacts: {model: {artifactType: {schemaTitle: system.Metrics", read, command)
		return func(sub *Submission) { change(sub); with("text", "weights")(sub) }
	}
	r := newRig(t, nil)
	check := func(how string, run *skiff.Run, state skiff.State, ran ...string) {
		t.Helper()
		if run.Status.State != state {
			t.Errorf("%s: the run is %s: %s", how, run.Status.State, run.Status.Message)
		}
		if diff := cmp.Diff(ran, r.ran(run.Name)); diff != "" {
			t.Errorf("%s: executed (-want +got):\n%s", how, diff)
		}
		if diff := cmp.Diff(map[string]json.RawMessage{"accuracy": json.RawMessage("0.75")}, run.Status.Metrics); diff != "" {
			t.Errorf("%s: metrics (-want +got):\n%s", how, diff)
		}
	}
	first := r.finish("cached", measured(read))
	check("its own", first, skiff.StateSucceeded, "make", "read")
	check("from the cache", r.finish("cached", measured(read)), skiff.StateSucceeded)
	check("resumed", r.resume(first.Name), skiff.StateSucceeded)

	waiting := r.submit("cached", measured("hold gate; "+read))
	r.held(waiting, "read")
	r.down()
	r.up()
	r.world.open("gate")
	check("from the cache, begun anew", r.ended(waiting), skiff.StateSucceeded, "read")

	failing := r.finish("cached", measured("until 1; "+read))
	check("from the cache, failed", failing, skiff.StateFailed, "read")
	check("from the cache, retried", r.retried(failing.Name), skiff.StateSucceeded, "read")
}
