package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server/view"
)

func (a *app) describeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "describe RUN | RUN/TASK | pod/NAME | artifact/NAME | secret/NAME | configmap/NAME | recurringrun/NAME",
		Short:             "Show everything known of one object",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLogs,
	}
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, done, err := a.reader(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		document, err := a.described(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		if !out.people() {
			return a.printDocument(*out, document)
		}
		switch document := document.(type) {
		case *view.Run:
			return a.describeRun(document)
		case *view.Task:
			return a.describeTask(document, args[0])
		case *skiff.RecurringRun:
			return a.describeRecurring(cmd.Context(), c, document)
		default:
			// The API's own words are the description.
			body, err := yaml.Marshal(document)
			if err != nil {
				return fmt.Errorf("encode the output: %w", err)
			}
			_, err = a.Out.Write(body)
			return err
		}
	}
	return cmd
}

// described reads what a reference names.
func (a *app) described(ctx context.Context, c *client.Client, ref string) (any, error) {
	owner, rest, nested := strings.Cut(ref, "/")
	for _, plural := range []string{"pods", "artifacts", "configmaps"} {
		if nested && (owner == plural || owner+"s" == plural) {
			var object map[string]any
			return object, a.getInto(ctx, c, plural, rest, &object)
		}
	}
	if nested && (owner == "secret" || owner == "secrets") {
		secret := &core.Secret{}
		err := a.getInto(ctx, c, "secrets", rest, secret)
		return secret.Redacted(), err
	}
	if nested && (owner == "recurringrun" || owner == "recurringruns") {
		return recurringRun(ctx, c, a.namespace, rest)
	}
	if nested && (owner == "run" || owner == "runs") {
		owner, rest, nested = strings.Cut(rest, "/")
	}
	run, err := c.Run(ctx, a.namespace, owner)
	if err != nil || !nested {
		return run, err
	}
	return findTask(run, rest)
}

func (a *app) getInto(ctx context.Context, c *client.Client, plural, name string, into any) error {
	return c.Get(ctx, mustKind(plural), a.namespace, name, into)
}

// fields writes aligned "name: value" lines, leaving out what is empty.
func fields(w io.Writer, pairs ...string) error {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(&b, "%-14s %s\n", pairs[i]+":", printable(pairs[i+1]))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func clock(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Local().Format(time.RFC3339)
}

func (a *app) describeRun(run *view.Run) error {
	state := string(run.State)
	if run.Fake {
		state += " (scheduled on a fake node)"
	}
	imported := ""
	if run.Imported != nil {
		imported = clock(&run.Imported.At) + " from " + run.Imported.Store + "; its logs are where it ran"
	}
	err := fields(a.Out, "Run", run.RunID, "Name", run.DisplayName, "Namespace", run.Namespace, "Pipeline", run.Pipeline,
		"State", state, "Reason", run.Reason, "Message", run.Message, "Created", clock(&run.Created),
		"Started", clock(run.Started), "Finished", clock(run.Finished), "Duration", took(run.Started, run.Finished),
		"Resumed from", run.ResumedFrom, "Run again", strings.Join(run.ResumedTasks, ", "), "Pipeline root", run.PipelineRoot,
		"Imported", imported, "Reproduces", run.Reproduces)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(run.Parameters)) {
		rows = append(rows, []string{name, short(run.Parameters[name])})
	}
	if err := a.section([]string{"Parameter", "Value"}, rows); err != nil {
		return err
	}
	rows = nil
	for i := range run.Tasks {
		t := &run.Tasks[i]
		rows = append(rows, []string{t.Name, string(t.Type), taskState(t), took(t.Started, t.Finished), t.Pod, t.Message})
	}
	if err := a.section([]string{"Task", "Type", "State", "Duration", "Pod", "Message"}, rows); err != nil {
		return err
	}
	return a.printResults(run)
}

func (a *app) describeTask(task *view.Task, ref string) error {
	exit := ""
	if task.ExitCode != nil {
		exit = fmt.Sprint(*task.ExitCode)
	}
	run, _, _ := strings.Cut(ref, "/")
	err := fields(a.Out, "Task", task.Name, "Id", task.ID, "Run", run, "Name", task.DisplayName, "Component", task.Component,
		"Type", string(task.Type), "State", taskState(task), "Reason", task.Reason, "Message", task.Message,
		"Attempts", fmt.Sprint(task.Attempts), "Exit code", exit, "Cache", task.CacheReason,
		"Reuse", task.ReuseReason, "Result of", cmp.Or(task.ReusedFrom, task.CachedFrom),
		"Started", clock(task.Started), "Finished", clock(task.Finished), "Duration", took(task.Started, task.Finished),
		"Image", task.Image, "Digest", task.ImageDigest, "Pod", task.Pod)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, part := range []struct {
		direction string
		values    map[string]string
	}{
		{"input", values(task.Inputs, task.InputArtifacts)}, {"output", values(task.Outputs, task.OutputArtifacts)},
	} {
		for _, name := range slices.Sorted(maps.Keys(part.values)) {
			rows = append(rows, []string{part.direction, name, part.values[name]})
		}
	}
	if err := a.section([]string{"Direction", "Name", "Value"}, rows); err != nil {
		return err
	}
	if task.Pod != "" {
		_, err = fmt.Fprintf(a.Out, "\nskiff logs %s/%s shows its output\n", run, task.Name)
	}
	return err
}

// values joins parameters and artifacts into text by name.
func values[V ~[]byte](parameters map[string]V, artifacts map[string][]string) map[string]string {
	all := make(map[string]string, len(parameters)+len(artifacts))
	for name, value := range parameters {
		all[name] = short([]byte(value))
	}
	for name, ids := range artifacts {
		all[name] = strings.Join(ids, ", ")
	}
	return all
}
