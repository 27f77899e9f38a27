package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/view"
)

// printRun writes a run for a person: where it stands, its tasks, and what came
// of it.
func (a *app) printRun(run *view.Run) error {
	if err := a.printRunHead(run); err != nil {
		return err
	}
	rows := make([][]string, 0, len(run.Tasks))
	for i := range run.Tasks {
		t := &run.Tasks[i]
		exit := ""
		if t.ExitCode != nil {
			exit = strconv.Itoa(int(*t.ExitCode))
		}
		rows = append(rows, []string{t.Name, string(t.Type), taskState(t), strconv.Itoa(t.Attempts), exit, took(t.Started, t.Finished), t.Message})
	}
	if len(rows) > 0 {
		if err := a.section([]string{"Task", "Type", "State", "Attempts", "Exit", "Duration", "Message"}, rows); err != nil {
			return err
		}
	}
	return a.printResults(run)
}

func (a *app) printRunHead(run *view.Run) error {
	state := string(run.State)
	if run.Fake {
		state += " (scheduled on a fake node)"
	}
	if run.Imported != nil {
		state += " (imported)"
	}
	text := fmt.Sprintf("run %s  %s  %s", run.RunID, run.Pipeline, state)
	if duration := took(run.Started, run.Finished); duration != "" {
		text += "  " + duration
	}
	if run.Message != "" {
		text += "\n" + run.Message
	}
	if run.ResumedFrom != "" {
		text += "\n" + resumed(run)
	}
	_, err := fmt.Fprintln(a.Out, text)
	return err
}

// printResults writes the tables of outputs, metrics and artifacts.
func (a *app) printResults(run *view.Run) error {
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(run.Outputs)) {
		rows = append(rows, []string{name, short(run.Outputs[name])})
	}
	if err := a.section([]string{"Output", "Value"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, m := range run.Metrics {
		rows = append(rows, []string{m.Name, short(m.Value), m.Task})
	}
	if err := a.section([]string{"Metric", "Value", "Task"}, rows); err != nil {
		return err
	}
	rows = nil
	for i := range run.Artifacts {
		artifact := &run.Artifacts[i]
		size := ""
		if artifact.Size > 0 {
			size = view.Bytes(artifact.Size)
		}
		if artifact.Gone != "" {
			size += " (removed)"
		}
		rows = append(rows, []string{artifact.Name, artifact.Type, size, artifact.Task, artifact.URI})
	}
	return a.section([]string{"Artifact", "Type", "Size", "Task", "URI"}, rows)
}

// section writes a table after an empty line, or nothing where it has no rows.
func (a *app) section(headings []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(a.Out); err != nil {
		return err
	}
	return printRows(a.Out, headings, rows)
}

func taskState(t *view.Task) string {
	if t.Reason == core.ReasonPaused {
		return string(t.State) + " (paused)"
	}
	if t.ReusedFrom != "" {
		return string(t.State) + " (reused)"
	}
	if t.Cached {
		return string(t.State) + " (cached)"
	}
	return string(t.State)
}

// took is how long something lasted, or lasts by now.
func took(started, finished *time.Time) string {
	if started == nil {
		return ""
	}
	end := time.Now()
	if finished != nil {
		end = *finished
	}
	return view.Duration(end.Sub(*started))
}

// short is a value on one line that leaves room for others.
func short(value json.RawMessage) string {
	const most = 120
	var text string
	if json.Unmarshal(value, &text) != nil {
		text = string(value)
	}
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most-1]) + "…"
	}
	return text
}

// exitCode is what "skiff run" ends with.
func exitCode(state skiff.State) int {
	switch state {
	case skiff.StateSucceeded:
		return exitOK
	case skiff.StateCanceled, skiff.StateCanceling:
		return exitCancelled
	default:
		return exitFailed
	}
}
