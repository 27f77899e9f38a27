package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server/view"
)

func (a *app) logsCommand() *cobra.Command {
	opts := client.LogOptions{}
	cmd := &cobra.Command{
		Use:   "logs RUN | RUN/TASK | pod/NAME",
		Short: "Print what steps wrote, during the run and long after it",
		Long: "Print what steps wrote, during the run and long after it.\n\n" +
			"RUN/TASK and pod/NAME print the step's own output and nothing else; RUN prints\n" +
			"all steps' output, each line after its task's name.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLogs,
	}
	cmd.Flags().BoolVarP(&opts.Follow, "follow", "f", false, "go on until the end")
	cmd.Flags().BoolVar(&opts.Timestamps, "timestamps", false, "put the time before each line")
	cmd.Flags().Int64Var(&opts.TailLines, "tail", -1, "only the last lines; below 0 means all")
	cmd.Flags().StringVarP(&opts.Container, "container", "c", "", "the pod's container")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, done, err := a.reader(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		return a.logs(cmd.Context(), c, args[0], opts)
	}
	return cmd
}

func (a *app) logs(ctx context.Context, c *client.Client, ref string, opts client.LogOptions) error {
	owner, rest, nested := strings.Cut(ref, "/")
	if nested && (owner == "pod" || owner == "pods") {
		return c.Logs(ctx, mustKind("pods"), a.namespace, rest, opts, a.Out)
	}
	run, err := c.Run(ctx, a.namespace, owner)
	if err != nil {
		return err
	}
	if run.Imported != nil {
		return fmt.Errorf("run %s was imported; its logs are where it ran", run.RunID)
	}
	if !nested {
		return a.runLogs(ctx, c, run, opts)
	}
	task, err := findTask(run, rest)
	if err != nil && opts.Follow && !run.State.Terminal() {
		task, err = awaitTask(ctx, c, run, rest)
	}
	if err != nil {
		return err
	}
	if task.Pod == "" && task.CachedFrom != "" {
		return a.lentLog(ctx, c, task, opts)
	}
	return c.Logs(ctx, mustKind("tasks"), a.namespace, task.ID, opts, a.Out)
}

// lentLog prints the log of the task whose result another one has.
func (a *app) lentLog(ctx context.Context, c *client.Client, task *view.Task, opts client.LogOptions) error {
	a.notef("%s was not run; this is the log of %s, whose result it has", task.Name, task.CachedFrom)
	err := c.Logs(ctx, mustKind("tasks"), a.namespace, task.CachedFrom, opts, a.Out)
	if client.NotFound(err) {
		return fmt.Errorf("task %s was deleted with its run, and its log with it", task.CachedFrom)
	}
	return err
}

// errFound ends a watch that has seen what it was for.
var errFound = errors.New("found")

// awaitTask waits for a task that the run has not come to yet.
func awaitTask(ctx context.Context, c *client.Client, run *view.Run, name string) (*view.Task, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var found *view.Task
	ended := false
	look := func() error {
		now, err := c.Run(ctx, run.Namespace, run.RunID)
		if err != nil {
			return err
		}
		if found, err = findTask(now, name); err == nil {
			return errFound
		}
		if ended = now.State.Terminal(); ended {
			return err
		}
		return nil
	}
	watches, ctx := errgroup.WithContext(ctx)
	// A task that appears and a run that ends without it both end the wait.
	var mu sync.Mutex
	once := func(client.Event) error {
		mu.Lock()
		defer mu.Unlock()
		return look()
	}
	watches.Go(func() error {
		return c.Watch(ctx, mustKind("tasks"), client.ListOptions{Namespace: run.Namespace, Fields: "spec.run=" + run.RunID}, once)
	})
	watches.Go(func() error {
		return c.Watch(ctx, mustKind("runs"), client.ListOptions{Namespace: run.Namespace, Fields: "metadata.name=" + run.RunID}, once)
	})
	if err := watches.Wait(); !errors.Is(err, errFound) {
		return nil, err
	}
	return found, nil
}

// runLogs prints the output of all steps of a run, each line after its task's
// name; where it follows, steps join as they begin.
func (a *app) runLogs(ctx context.Context, c *client.Client, run *view.Run, opts client.LogOptions) error {
	var mu sync.Mutex
	one := func(ctx context.Context, id, name string) error {
		w := &prefixWriter{mu: &mu, out: a.Out, prefix: name + " | "}
		defer w.flush()
		err := c.Logs(ctx, mustKind("tasks"), run.Namespace, id, opts, w)
		if client.NotFound(err) {
			return nil
		}
		return err
	}
	if !opts.Follow || run.State.Terminal() {
		for i := range run.Tasks {
			if t := &run.Tasks[i]; t.Pod != "" {
				if err := one(ctx, t.ID, t.Name); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return a.followRunLogs(ctx, c, run, one)
}

func (a *app) followRunLogs(ctx context.Context, c *client.Client, run *view.Run, one func(ctx context.Context, id, name string) error) error {
	watchCtx, stopWatch := context.WithCancelCause(ctx)
	defer stopWatch(nil)
	streams, ctx := errgroup.WithContext(ctx)
	started := map[string]bool{}
	streams.Go(func() error {
		err := c.Watch(watchCtx, mustKind("tasks"), client.ListOptions{Namespace: run.Namespace, Fields: "spec.run=" + run.RunID},
			func(event client.Event) error {
				var task skiff.Task
				if err := decode(event.Object, &task); err != nil {
					return err
				}
				if task.Status.Pod != "" && !started[task.Name] {
					started[task.Name] = true
					streams.Go(func() error { return one(ctx, task.Name, task.Spec.Path) })
				}
				return nil
			})
		if errors.Is(err, errFound) {
			return nil
		}
		return err
	})
	streams.Go(func() error {
		err := c.Watch(ctx, mustKind("runs"), client.ListOptions{Namespace: run.Namespace, Fields: "metadata.name=" + run.RunID},
			func(event client.Event) error {
				var object skiff.Run
				if err := decode(event.Object, &object); err != nil {
					return err
				}
				if object.Status.State.Terminal() {
					return errFound
				}
				return nil
			})
		if errors.Is(err, errFound) {
			// No step begins after the run's end; those that were seen to
			// begin are read to their own end.
			stopWatch(errFound)
			return nil
		}
		return err
	})
	return streams.Wait()
}

// prefixWriter puts a name before each line and keeps lines of several writers
// apart.
type prefixWriter struct {
	mu      *sync.Mutex
	out     io.Writer
	prefix  string
	pending []byte
}

// Write implements io.Writer.
func (w *prefixWriter) Write(p []byte) (int, error) {
	w.pending = append(w.pending, p...)
	for {
		i := bytes.IndexByte(w.pending, '\n')
		if i < 0 {
			return len(p), nil
		}
		if err := w.line(w.pending[:i+1]); err != nil {
			return 0, err
		}
		w.pending = w.pending[i+1:]
	}
}

// flush writes a last line that has no end.
func (w *prefixWriter) flush() {
	if len(w.pending) > 0 {
		_ = w.line(append(w.pending, '\n'))
		w.pending = nil
	}
}

func (w *prefixWriter) line(text []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := fmt.Fprintf(w.out, "%s%s", w.prefix, text)
	return err
}
