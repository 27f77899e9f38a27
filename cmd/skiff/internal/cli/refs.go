package cli

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server/view"
)

// mustKind is for the plurals that this package itself writes down.
func mustKind(plural string) client.Kind {
	kind, ok := client.KindOf(plural)
	if !ok {
		panic("cli: no kind " + plural)
	}
	return kind
}

// findTask resolves what people call a task: its path in the run, its object's
// name, or, where only one task answers to it, its key or display name.
func findTask(run *view.Run, name string) (*view.Task, error) {
	for i := range run.Tasks {
		if t := &run.Tasks[i]; t.Name == name || t.ID == name {
			return t, nil
		}
	}
	var found []*view.Task
	for i := range run.Tasks {
		if t := &run.Tasks[i]; path.Base(t.Name) == name || t.DisplayName == name {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("run %s has no task %q; it has %s", run.RunID, name, sample(taskNames(run.Tasks)))
	}
	names := make([]string, 0, len(found))
	for _, t := range found {
		names = append(names, t.Name)
	}
	return nil, fmt.Errorf("run %s has %d tasks called %q; say which: %s", run.RunID, len(found), name, sample(names))
}

func taskNames(tasks []view.Task) []string {
	names := make([]string, 0, len(tasks))
	for _, t := range tasks {
		names = append(names, t.Name)
	}
	return names
}

// sample is a list of names for a message, cut where it would fill the screen.
func sample(names []string) string {
	const most = 12
	if len(names) == 0 {
		return "none yet"
	}
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// completion of names asks the daemon, where one is up; where none is, there is
// nothing to offer.
type completer func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// complete offers the names of a kind for the first argument.
func (a *app) complete(plural string) completer {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return withPrefix(a.names(cmd.Context(), plural), typed), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeLogs offers runs, the tasks of a run once it is typed, and pods.
func (a *app) completeLogs(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	const keep = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	owner, _, nested := strings.Cut(typed, "/")
	var names []string
	switch {
	case owner == "pod" && nested:
		for _, name := range a.names(cmd.Context(), "pods") {
			names = append(names, "pod/"+name)
		}
	case nested:
		c, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		run, err := c.Run(cmd.Context(), a.namespace, owner)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, task := range run.Tasks {
			if task.Pod != "" {
				names = append(names, owner+"/"+task.Name)
			}
		}
	default:
		names = append(a.names(cmd.Context(), "runs"), "pod/")
		return withPrefix(names, typed), keep
	}
	return withPrefix(names, typed), cobra.ShellCompDirectiveNoFileComp
}

// completionLimit bounds what one press of the tab key reads.
const completionLimit = 200

func (a *app) names(ctx context.Context, plural string) []string {
	c, err := a.client()
	if err != nil {
		return nil
	}
	list, err := c.List(ctx, mustKind(plural), client.ListOptions{Namespace: a.namespace, Limit: completionLimit})
	if err != nil {
		return nil
	}
	var names []string
	for _, item := range list.Items {
		var object struct {
			Metadata core.ObjectMeta `json:"metadata"`
		}
		if decode(item, &object) == nil {
			names = append(names, object.Metadata.Name)
		}
	}
	return names
}

func withPrefix(names []string, prefix string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, prefix) })
}
