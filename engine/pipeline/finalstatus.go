package pipeline

import "github.com/skiff-ml/skiff/api/skiff"

// finalStatus is what a task that asks for another's final status is given
// (PipelineTaskFinalStatus, read in camelCase by the SDK). The words are those
// that the cluster's driver passes on from its metadata store: COMPLETE where
// the published enumeration says SUCCEEDED.
func (x *execution) finalStatus(of *node) map[string]any {
	state := string(of.state())
	switch of.state() {
	case skiff.StateSucceeded:
		state = "COMPLETE"
	case skiff.StateCanceled:
		state = "CANCELED"
	}
	status := map[string]any{
		"state":                   state,
		"pipelineJobResourceName": runResourceName(x.ir.PipelineInfo.Name, x.run.Name),
		"pipelineTaskName":        of.key,
		// It is there whether there was one or not: SDKs before 2.14 read it without asking.
		"error": map[string]any{},
	}
	if of.state() == skiff.StateFailed {
		code := 2.0 // google.rpc.Code UNKNOWN: the step's own failure
		status["error"] = map[string]any{"code": code, "message": of.task.Status.Message}
	}
	return status
}
