package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server"
)

const schedulesAbout = "As many recurring runs as named, all due in the same second, of a pipeline of one step that runs `/bin/true` on the process " +
	"runtime. A run is made when its object is durable, and has begun when its step runs; both are told from the second that it was due. " +
	"Beside it, in turns, as many runs of the same pipeline are handed in at once, by 16 callers, to the same daemon: so long does the machine " +
	"take for them without any schedule, and what is beyond that is the schedules' doing."

const (
	// dueAhead leaves the time to make the recurring runs before they are due.
	dueAhead = 5 * time.Second
	// submitters is how many callers hand runs in at a time.
	submitters = 16
	// settledPoll is between two looks whether all has ended; it is short beside
	// what is measured, which is read from the objects.
	settledPoll = 100 * time.Millisecond

	kfpAPI = "http://localhost/apis/v2beta1"
)

func runSchedules(ctx context.Context, b *bench) error {
	count := b.size(200, 10)
	pipeline, err := chain(1, "busybox", noop)
	if err != nil {
		return err
	}
	var made, begun, direct, beyond []float64
	err = b.withDaemon(ctx, "schedules", []string{"--runtime", "process"}, func(d *daemon) error {
		if err := b.describeRuntime(ctx, d); err != nil {
			return err
		}
		if _, err := d.run(ctx, pipeline); err != nil {
			return err
		}
		for round := range b.pairs() {
			due, err := d.allDueAtOnce(ctx, pipeline, count)
			if err != nil {
				return err
			}
			handed, err := d.allHandedIn(ctx, pipeline, count)
			if err != nil {
				return err
			}
			made, begun = append(made, percentile(due.made, 95)), append(begun, percentile(due.begun, 95))
			direct = append(direct, percentile(handed.begun, 95))
			beyond = append(beyond, max(0, begun[round]-direct[round]))
			b.say("round %d: made within %.0f ms, begun within %.0f ms; handed in: %.0f ms", round+1, made[round], begun[round], direct[round])
		}
		return nil
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("of %s due at once, p95", thousands(fmt.Sprint(count)))
	b.figure("run made, "+name, milliseconds(), noBar(), made)
	b.pair("step begun, "+name, "handed in at once", milliseconds(), noBar(), begun, direct)
	b.figure("step begun beyond what handing in takes, "+name, milliseconds(), atMost(2000, milliseconds()), beyond)
	return nil
}

// lags are, of each run, the time until it was made and until its step ran.
type lags struct{ made, begun []time.Duration }

// allDueAtOnce makes recurring runs that are due at one second to come, and
// waits until their runs have ended.
func (d *daemon) allDueAtOnce(ctx context.Context, pipeline []byte, count int) (*lags, error) {
	at := time.Now().UTC().Add(dueAhead).Truncate(time.Second)
	var ids []string
	for i := range count {
		id, err := d.makeRecurring(ctx, pipeline, fmt.Sprintf("due-%d", i), at)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if late := time.Since(at); late > 0 {
		return nil, fmt.Errorf("making %d recurring runs took %s longer than the %s before they were due", count, late, dueAhead)
	}
	mine := make(map[string]bool, count)
	for _, id := range ids {
		mine[id] = true
	}
	l, err := d.lags(ctx, count, at, func(run *skiff.Run) bool { return mine[run.Spec.RecurringRun] })
	for _, id := range ids {
		res, gone := d.request(ctx, http.MethodDelete, kfpAPI+"/recurringruns/"+id, nil)
		if gone != nil {
			return nil, errors.Join(err, gone)
		}
		err = errors.Join(err, res.Body.Close())
	}
	return l, err
}

func (d *daemon) makeRecurring(ctx context.Context, pipeline []byte, name string, at time.Time) (string, error) {
	body, err := json.Marshal(map[string]any{
		"display_name": name, "mode": "ENABLE", "pipeline_spec": json.RawMessage(pipeline),
		// That second, which comes once a year.
		"trigger": map[string]any{"cron_schedule": map[string]any{"cron": at.Format("5 4 15 2 1 *")}},
	})
	if err != nil {
		return "", fmt.Errorf("encode the recurring run: %w", err)
	}
	res, err := d.request(ctx, http.MethodPost, kfpAPI+"/recurringruns", body)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var made struct {
		ID string `json:"recurring_run_id"`
	}
	if err := json.NewDecoder(res.Body).Decode(&made); err != nil {
		return "", fmt.Errorf("read the recurring run: %w", err)
	}
	return made.ID, nil
}

// allHandedIn hands runs in at once and waits until they have ended.
func (d *daemon) allHandedIn(ctx context.Context, pipeline []byte, count int) (*lags, error) {
	label := fmt.Sprintf("handed-in-%d", time.Now().UnixNano())
	body, err := json.Marshal(server.Submission{DisplayName: label, Package: pipeline, Filename: "pipeline.yaml"})
	if err != nil {
		return nil, fmt.Errorf("encode the submission: %w", err)
	}
	begin := time.Now()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(submitters)
	for range count {
		group.Go(func() error {
			res, err := d.request(groupCtx, http.MethodPost, apiRoot+"/namespaces/default/runs:submit", body)
			if err != nil {
				return err
			}
			return res.Body.Close()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return d.lags(ctx, count, begin, func(run *skiff.Run) bool { return run.Spec.DisplayName == label })
}

// lags waits until as many runs as named have ended and reads how long after a
// time they were made and begun.
func (d *daemon) lags(ctx context.Context, count int, since time.Time, mine func(*skiff.Run) bool) (*lags, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, runPatience, fmt.Errorf("%d runs did not end within %s", count, runPatience))
	defer cancel()
	for {
		l := &lags{}
		runs, err := list[skiff.Run](ctx, d, "runs")
		if err != nil {
			return nil, errors.Join(err, context.Cause(ctx))
		}
		names := map[string]bool{}
		for i := range runs {
			run := &runs[i]
			if !mine(run) || run.Status.State != skiff.StateSucceeded {
				if mine(run) && run.Status.State.Terminal() {
					return nil, fmt.Errorf("run %s ended as %s: %s", run.Name, run.Status.State, run.Status.Message)
				}
				continue
			}
			names[run.Name] = true
			l.made = append(l.made, run.CreationTimestamp.Sub(since))
		}
		if len(names) > count {
			return nil, fmt.Errorf("there are %d runs in place of %d", len(names), count)
		}
		if len(names) == count {
			tasks, err := list[skiff.Task](ctx, d, "tasks")
			if err != nil {
				return nil, err
			}
			for i := range tasks {
				if names[tasks[i].Spec.Run] && tasks[i].Spec.Type == skiff.TaskContainer {
					l.begun = append(l.begun, tasks[i].Status.StartedAt.Sub(since))
				}
			}
			return l, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(settledPoll):
		}
	}
}

// list reads all objects of a kind of skiff's own.
func list[T any](ctx context.Context, d *daemon, plural string) ([]T, error) {
	var all []T
	query := url.Values{"limit": {"1000"}}
	for {
		res, err := d.request(ctx, http.MethodGet, apiRoot+"/namespaces/default/"+plural+"?"+query.Encode(), nil)
		if err != nil {
			return nil, err
		}
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []T `json:"items"`
		}
		err = errors.Join(json.NewDecoder(res.Body).Decode(&page), res.Body.Close())
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", plural, err)
		}
		all = append(all, page.Items...)
		if page.Metadata.Continue == "" {
			return all, nil
		}
		query.Set("continue", page.Metadata.Continue)
	}
}
