package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/store"
)

const daemonAbout = "`skiff up` with its defaults. Ready is the time from the start of the process to the first 200 of `/readyz` over TCP, " +
	"asked for every half millisecond; steps can run when the machine has been looked at too. Idle memory is RssAnon of " +
	"/proc/PID/status five seconds after that, which leaves out the mapped store."

// runDaemon measures starts on an empty and on a filled state, and what a
// daemon takes that has nothing to do.
func runDaemon(ctx context.Context, b *bench) error {
	info, err := os.Stat(b.skiff)
	if err != nil {
		return fmt.Errorf("find the program under test: %w; run make build", err)
	}
	b.figure("program, stripped", megabytes(), atMost(40, megabytes()), []float64{float64(info.Size()) / 1e6})
	if err := b.starts(ctx, "an empty state", 100, false, func(round int) (string, error) {
		return filepath.Join(b.dir, fmt.Sprintf("empty-%d", round)), nil
	}); err != nil {
		return err
	}
	full := filepath.Join(b.dir, "full")
	count := b.size(100_000, 2_000)
	begin := time.Now()
	if err := fillState(ctx, full, count); err != nil {
		return err
	}
	b.say("filled a state with %s objects in %.1f s", thousands(fmt.Sprint(count)), time.Since(begin).Seconds())
	name := thousands(fmt.Sprint(count)) + " objects"
	same := func(int) (string, error) { return full, nil }
	if err := b.starts(ctx, name, 1000, false, same); err != nil {
		return err
	}
	return b.starts(ctx, name+" after kill -9", 1000, true, same)
}

// starts starts a daemon again and again, each time on the folder that state
// names. Killed daemons are measured for their starts alone.
func (b *bench) starts(ctx context.Context, name string, limit float64, killed bool, state func(round int) (string, error)) error {
	var ready, usable, memory []float64
	if killed {
		// The first round must find what a kill leaves, too.
		if err := b.startAndKill(ctx, state); err != nil {
			return err
		}
	}
	for round := range b.pairs() {
		folder, err := state(round)
		if err != nil {
			return err
		}
		d, err := b.startDaemon(ctx, folder)
		if err != nil {
			return err
		}
		ready = append(ready, float64(d.ready)/float64(time.Millisecond))
		begin := time.Now()
		_, err = d.enginesUp(ctx)
		usable = append(usable, float64(d.ready+time.Since(begin))/float64(time.Millisecond))
		if killed {
			d.kill()
			if err != nil {
				return err
			}
			continue
		}
		if err == nil {
			var held float64
			held, err = d.idle(ctx, b.span(5*time.Second, 300*time.Millisecond))
			memory = append(memory, held)
		}
		if err := errors.Join(err, d.stop()); err != nil {
			return err
		}
	}
	b.figure("ready on "+name, milliseconds(), atMost(limit, milliseconds()), ready)
	b.figure("steps can run on "+name, milliseconds(), noBar(), usable)
	if !killed {
		b.figure("idle memory on "+name, megabytes(), atMost(40, megabytes()), memory)
	}
	return nil
}

func (b *bench) startAndKill(ctx context.Context, state func(round int) (string, error)) error {
	folder, err := state(0)
	if err != nil {
		return err
	}
	d, err := b.startDaemon(ctx, folder)
	if err != nil {
		return err
	}
	_, err = d.enginesUp(ctx)
	d.kill()
	return err
}

// idle is the daemon's anonymous memory in MB after a while of nothing to do.
func (d *daemon) idle(ctx context.Context, after time.Duration) (float64, error) {
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-d.ended:
		return 0, fmt.Errorf("the daemon ended while it was idle: %s", tail(d.log))
	case <-time.After(after):
	}
	text := field(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid), "RssAnon")
	kib, err := strconv.ParseFloat(strings.TrimSuffix(text, " kB"), 64)
	if err != nil {
		return 0, fmt.Errorf("read RssAnon %q: %w", text, err)
	}
	return kib * 1024 / 1e6, nil
}

const (
	// tasksPerRun makes a filled state of runs of five steps, each of one pod.
	tasksPerRun = 5
	// fillBatch keeps one transaction small beside the file.
	fillBatch = 500
)

// fillState makes a state folder with finished runs, their tasks and pods.
func fillState(ctx context.Context, state string, count int) (err error) {
	s, err := store.Open(ctx, store.Config{
		Path: filepath.Join(state, "skiff.db"), Kinds: append(pipeline.Kinds(), pod.Kinds()...),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var ops []store.Op
	for made := 0; made < count; {
		run, err := finishedRun()
		if err != nil {
			return err
		}
		run = run[:min(len(run), count-made)]
		made += len(run)
		ops = append(ops, run...)
		if len(ops) < fillBatch && made < count {
			continue
		}
		if _, err := s.Commit(ctx, ops...); err != nil {
			return fmt.Errorf("fill the state: %w", err)
		}
		ops = ops[:0]
	}
	return nil
}

// finishedRun is a run that succeeded, with its tasks and pods.
func finishedRun() ([]store.Op, error) {
	run, err := newRun()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	run.Status.State, run.Status.StartedAt, run.Status.FinishedAt = skiff.StateSucceeded, now, now
	run.Status.TaskCounts = map[skiff.State]int{skiff.StateSucceeded: tasksPerRun}
	ops := []store.Op{{Verb: store.Create, Kind: pipeline.Runs, Object: run}}
	for i := range tasksPerRun {
		key := stepName(i)
		podName := run.Name + "-" + key
		task := &skiff.Task{
			TypeMeta:   core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.TaskKind},
			ObjectMeta: core.ObjectMeta{Name: run.Name + "." + key, Namespace: run.Namespace, UID: uuid.NewString()},
			Spec:       skiff.TaskSpec{Run: run.Name, Path: key, Key: key, DisplayName: key, Component: "comp-step", Type: skiff.TaskContainer},
			Status: skiff.TaskStatus{State: skiff.StateSucceeded, Attempts: 1, Pod: podName, StartedAt: now, FinishedAt: now,
				CacheKey: uuid.NewString(), Image: "busybox", ImageDigest: "sha256:" + strings.Repeat("0", 64)},
		}
		ended := &core.Pod{
			TypeMeta: core.TypeMeta{APIVersion: "v1", Kind: core.PodKind},
			ObjectMeta: core.ObjectMeta{Name: podName, Namespace: run.Namespace, UID: uuid.NewString(),
				Labels:          map[string]string{core.LabelRun: run.Name, core.LabelTask: key},
				OwnerReferences: []core.OwnerReference{{APIVersion: skiff.APIVersion, Kind: skiff.TaskKind, Name: task.Name, UID: task.UID, Controller: true}}},
			Spec:   core.PodSpec{RestartPolicy: "Never", Containers: []core.Container{{Name: "main", Image: "busybox", Command: []string{noop}}}},
			Status: core.PodStatus{Phase: core.PodSucceeded, StartTime: now},
		}
		ops = append(ops, store.Op{Verb: store.Create, Kind: pipeline.Tasks, Object: task},
			store.Op{Verb: store.Create, Kind: pod.KindName, Object: ended})
	}
	return ops, nil
}
