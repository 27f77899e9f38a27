package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server/view"
)

// What a run does with a step that has failed.
const (
	onFailureFail  = "fail"
	onFailurePause = "pause"
)

// defaultPause is long enough to come back from lunch, and short enough that a
// forgotten step does not keep a GPU over night.
const defaultPause = time.Hour

// registerPause declares the flags that say what becomes of a failed step.
func (o *runOptions) registerPause(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.onFailure, "on-failure", onFailureFail, "fail, or pause: keep the container of a step that failed, to look around in with \"skiff debug\"")
	flags.DurationVar(&o.pause, "pause-timeout", 0, "how long a paused step is kept, with its CPUs, memory and GPUs (default "+view.Duration(defaultPause)+")")
	_ = cmd.RegisterFlagCompletionFunc("on-failure", cobra.FixedCompletions([]string{onFailureFail, onFailurePause}, cobra.ShellCompDirectiveNoFileComp))
}

// pauseSeconds is how long failed steps are kept; 0 where they are not.
func (o *runOptions) pauseSeconds() (int64, error) {
	switch {
	case o.onFailure != onFailureFail && o.onFailure != onFailurePause:
		return 0, fmt.Errorf("--on-failure %q: want %s or %s", o.onFailure, onFailureFail, onFailurePause)
	case o.onFailure == onFailureFail && o.pause != 0:
		return 0, fmt.Errorf("--pause-timeout: steps are paused with --on-failure pause alone; give that, too")
	case o.onFailure == onFailureFail:
		return 0, nil
	case o.pause == 0:
		o.pause = defaultPause
	case o.pause < time.Second:
		return 0, fmt.Errorf("--pause-timeout %s: want a second at least", o.pause)
	}
	return int64(o.pause / time.Second), nil
}

func (a *app) releaseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release RUN[/TASK]...",
		Short: "Let failed steps end that are paused",
		Long: "Let steps end that have failed and are paused (\"skiff run --on-failure pause\"): their containers\n" +
			"go, and what they held of the machine is free again. The steps have failed then, and the run\n" +
			"goes on from there. Without TASK it is every paused step of the run.",
		Example:           "  skiff release 0197a3/train\n  skiff release 0197a3",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeLogs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		for _, ref := range args {
			if err := a.release(cmd.Context(), c, ref); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// release lets the paused step that ref names end, or all of a run.
func (a *app) release(ctx context.Context, c *client.Client, ref string) error {
	runID, name, nested := strings.Cut(ref, "/")
	run, err := c.Run(ctx, a.namespace, runID)
	if err != nil {
		return err
	}
	var tasks []*view.Task
	if nested {
		task, err := findTask(run, name)
		if err != nil {
			return err
		}
		if task.Reason != core.ReasonPaused {
			return fmt.Errorf("%s is not paused: it is %s", ref, task.State)
		}
		tasks = append(tasks, task)
	}
	for i := range run.Tasks {
		if !nested && run.Tasks[i].Reason == core.ReasonPaused {
			tasks = append(tasks, &run.Tasks[i])
		}
	}
	if len(tasks) == 0 {
		return fmt.Errorf("no step of run %s is paused: it is %s", run.RunID, run.State)
	}
	for _, task := range tasks {
		if err := c.Release(ctx, a.namespace, task.Pod); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(a.Out, "%s/%s is released\n", run.RunID, task.Name); err != nil {
			return err
		}
	}
	return nil
}

// tellPaused says of each step that has come to be paused how to go on. Where
// every change has a line of its own, that says it already.
func (w *waiter) tellPaused() {
	untold := w.untold
	w.untold = nil
	if _, said := w.show.(*lines); said {
		return
	}
	for _, task := range untold {
		if w.paused[task.Status.Pod] {
			continue
		}
		if w.paused == nil {
			w.paused = map[string]bool{}
		}
		w.paused[task.Status.Pod] = true
		w.show.finish() // what is drawn stays above
		w.app.notef("%s is paused: %s", task.Spec.Path, printable(task.Status.Message))
	}
}
