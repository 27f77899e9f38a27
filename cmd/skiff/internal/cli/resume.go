package cli

import (
	"errors"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/server/view"
)

// registerResume declares the flags of a run that goes on from another.
func (o *runOptions) registerResume(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.resume, "resume", "", "go on from this run: what is unchanged of it is taken over")
	flags.StringSliceVar(&o.from, "from", nil, "with --resume: run this task again, and all that comes after it; may be given again")
	for flag, complete := range map[string]completer{
		"resume": func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return withPrefix(a.names(cmd.Context(), "runs"), typed), cobra.ShellCompDirectiveNoFileComp
		},
		"from": func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return withPrefix(a.tasksOf(cmd, o.resume), typed), cobra.ShellCompDirectiveNoFileComp
		},
	} {
		if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // the flag was declared above
		}
	}
}

// tasksOf are the paths of a run's tasks, for completion.
func (a *app) tasksOf(cmd *cobra.Command, run string) []string {
	c, err := a.client()
	if err != nil || run == "" {
		return nil
	}
	document, err := c.Run(cmd.Context(), a.namespace, run)
	if err != nil {
		return nil
	}
	return taskNames(document.Tasks)
}

// file is the pipeline to run; empty for that of the run to resume.
func (o *runOptions) file(args []string) (string, error) {
	switch {
	case len(args) == 1 && args[0] != "":
		if o.resume == "" && len(o.from) > 0 {
			break
		}
		return args[0], nil
	case o.resume != "":
		return "", nil
	case len(o.from) == 0:
		return "", errors.New("want the pipeline's FILE, or --resume RUN; see \"skiff run --help\"")
	}
	return "", errors.New("--from names tasks of a run that is resumed; give that with --resume RUN")
}

// resumed says what a run went on from, and what it took over.
func resumed(run *view.Run) string {
	taken := 0
	for i := range run.Tasks {
		if run.Tasks[i].ReusedFrom != "" {
			taken++
		}
	}
	text := "resumed from run " + run.ResumedFrom
	if len(run.ResumedTasks) > 0 {
		text += ", from " + strings.Join(run.ResumedTasks, ", ")
	}
	switch taken {
	case 0:
		return text + ": no step taken over"
	case 1:
		return text + ": 1 step taken over"
	default:
		return text + ": " + strconv.Itoa(taken) + " steps taken over"
	}
}
