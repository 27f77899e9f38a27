package daemon

import (
	"context"
	"io"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/engine/recurring"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
)

// The daemon is what the server asks for of the rooms below.
var (
	_ server.Pipelines  = (*daemon)(nil)
	_ server.Logs       = (*daemon)(nil)
	_ server.NodeSource = (*daemon)(nil)
	_ server.Artifacts  = (*daemon)(nil)
	_ server.Pods       = (*daemon)(nil)
	_ server.Retention  = (*daemon)(nil)
)

// Submit implements server.Pipelines. It waits for the engines.
func (d *daemon) Submit(ctx context.Context, s server.Submission) (*skiff.Run, error) {
	e, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	return e.pipelines.Submit(ctx, pipeline.Submission(s))
}

// Check implements server.Pipelines.
func (d *daemon) Check(ctx context.Context, s server.Submission) error {
	e, err := d.await(ctx)
	if err != nil {
		return err
	}
	return e.pipelines.Check(ctx, pipeline.Submission(s))
}

// Inspect implements server.Pipelines.
func (d *daemon) Inspect(ctx context.Context, namespace, filename string, data []byte) (*skiff.PipelineManifest, error) {
	e, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	return e.pipelines.Inspect(ctx, namespace, filename, data)
}

// Retry implements server.Pipelines.
func (d *daemon) Retry(ctx context.Context, namespace, name string) error {
	e, err := d.await(ctx)
	if err != nil {
		return err
	}
	return e.pipelines.Retry(ctx, namespace, name)
}

// Trigger implements server.Pipelines.
func (d *daemon) Trigger(ctx context.Context, namespace, name string) (*skiff.Run, error) {
	e, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	return e.recurring.Trigger(ctx, namespace, name)
}

// scheduled hands what engine/recurring wants made to engine/pipeline.
type scheduled struct{ pipelines *pipeline.Controller }

var _ recurring.Pipelines = scheduled{}

// Prepare implements recurring.Pipelines.
func (s scheduled) Prepare(ctx context.Context, sub recurring.Submission) (*skiff.Run, []store.Op, error) {
	return s.pipelines.Prepare(ctx, pipeline.Submission{
		Namespace: sub.Namespace, Name: sub.Name, DisplayName: sub.DisplayName, Experiment: sub.Experiment,
		Filename: sub.Filename, Package: sub.Package, Parameters: sub.Parameters, Arguments: sub.Arguments,
		PipelineRoot: sub.PipelineRoot, ServiceAccount: sub.ServiceAccount, PipelineVersion: sub.PipelineVersion,
		RecurringRun: sub.RecurringRun, ScheduledAt: sub.ScheduledAt,
	})
}

// Purge implements server.Retention.
func (d *daemon) Purge(ctx context.Context, namespace string, bounds *skiff.Retention, dryRun bool) (*skiff.PurgeReport, error) {
	e, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	if bounds == nil {
		found, err := e.retention.Retention(ctx, namespace)
		if err != nil {
			return nil, err
		}
		bounds = &found
	}
	return e.retention.Purge(ctx, namespace, *bounds, dryRun)
}

// PodLogs implements server.Logs.
func (d *daemon) PodLogs(ctx context.Context, namespace, name string, opts server.LogOptions, w io.Writer) error {
	e, err := d.await(ctx)
	if err != nil {
		return err
	}
	return e.pods.PodLogs(ctx, namespace, name, pod.LogOptions{
		Container: opts.Container, Follow: opts.Follow, Timestamps: opts.Timestamps, TailLines: opts.TailLines, Stream: opts.Stream,
	}, w)
}

// Usage implements server.Logs.
func (d *daemon) Usage(ctx context.Context) ([]view.Usage, error) {
	e, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	live, err := e.pods.Usage(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]view.Usage, 0, len(live))
	for _, one := range live {
		p := one.Pod
		usage := view.Usage{
			Namespace: p.Namespace, Name: p.Name, Run: p.Labels[core.LabelRun], Task: p.Labels[core.LabelTask],
			At: one.Stats.At, CPUNanos: one.Stats.CPUNanos, MemoryBytes: one.Stats.MemoryBytes, Pids: one.Stats.Pids,
			Fake: one.Fake || e.fake,
		}
		if claim := p.Status.Claim; claim != nil {
			usage.Claim = view.Resources{CPUMilli: claim.CPUMilli, MemoryBytes: claim.MemoryBytes, GPUs: len(claim.GPUs)}
			usage.GPUs = claim.GPUs
		}
		all = append(all, usage)
	}
	return all, nil
}

// Debug implements server.Pods.
func (d *daemon) Debug(ctx context.Context, namespace, name string, fresh bool) (*server.DebugPod, error) {
	e, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	made, command, err := e.pods.Debug(ctx, namespace, name, fresh)
	if err != nil {
		return nil, err
	}
	return &server.DebugPod{Pod: made.Name, Image: made.Spec.Containers[0].Image, Command: command, Kept: made.Name == name}, nil
}

// Exec implements server.Pods.
func (d *daemon) Exec(ctx context.Context, namespace, name, container string, req server.ExecRequest) (int, error) {
	e, err := d.await(ctx)
	if err != nil {
		return 0, err
	}
	sizes := make(chan runtime.TerminalSize, 1)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case size := <-req.Resize:
				select {
				case sizes <- runtime.TerminalSize(size):
				case <-done:
					return
				}
			}
		}
	}()
	return e.pods.Exec(ctx, namespace, name, container, runtime.ExecRequest{
		Argv: req.Argv, Stdin: req.Stdin, Stdout: req.Stdout, Stderr: req.Stderr, TTY: req.TTY, Resize: sizes,
	})
}
