package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/engine/recurring"
	"github.com/skiff-ml/skiff/store"
)

const (
	kfpExperiments = 20
	// kfpRecurring is how many recurring runs made a fifth of the runs.
	kfpRecurring = 5
	// kfpDetailed runs have tasks: those that are asked for one by one.
	kfpDetailed = 2000
	kfpTeam     = "team-a"
)

// benchEpoch is when the newest run of a filled state was made.
func benchEpoch() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

func benchExperiment(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

func benchRecurring(i int) string { return fmt.Sprintf("00000000-0000-4000-9000-%012d", i) }

// benchNamespace is the one of an experiment: those numbered 15 and higher are
// another team's, who have an eighth of all runs.
func benchNamespace(experiment int) string {
	if experiment >= kfpExperiments*3/4 {
		return kfpTeam
	}
	return "default"
}

// fillRuns makes a state folder with ended runs, one a second, of which the
// newest have tasks; their names are returned. The store writes the objects first
// and their indexes in one go, as it does after an upgrade that has new ones: what
// years took in one by one is there within a minute.
func fillRuns(ctx context.Context, state string, count int) (detailed []string, err error) {
	kinds := slices.Concat(pipeline.Kinds(), pod.Kinds(), recurring.Kinds())
	bare := slices.Clone(kinds)
	for i := range bare {
		bare[i].Indexes = nil
	}
	path := filepath.Join(state, "skiff.db")
	s, err := store.Open(ctx, store.Config{Path: path, Kinds: bare})
	if err != nil {
		return nil, err
	}
	detailed, err = writeRuns(ctx, s, count)
	if err = errors.Join(err, s.Close()); err != nil {
		return nil, err
	}
	if s, err = store.Open(ctx, store.Config{Path: path, Kinds: kinds}); err != nil {
		return nil, err
	}
	return detailed, s.Close()
}

func writeRuns(ctx context.Context, s *store.Store, count int) (detailed []string, err error) {
	ops := []store.Op{{Verb: store.Create, Kind: pipeline.Manifests, Object: benchManifest("default")},
		{Verb: store.Create, Kind: pipeline.Manifests, Object: benchManifest(kfpTeam)}}
	for i := range kfpExperiments {
		ops = append(ops, store.Op{Verb: store.Create, Kind: pipeline.Experiments, Object: &skiff.Experiment{
			ObjectMeta: core.ObjectMeta{Name: benchExperiment(i), Namespace: benchNamespace(i)}, Spec: skiff.ExperimentSpec{DisplayName: fmt.Sprintf("experiment %d", i)}}})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range count {
		made, err := benchRun(rng, count, i)
		if err != nil {
			return nil, err
		}
		ops = append(ops, store.Op{Verb: store.Create, Kind: pipeline.Runs, Object: made})
		if count-i <= kfpDetailed {
			detailed = append(detailed, made.Name)
			ops = append(ops, benchTasks(made)...)
		}
		if len(ops) < fillBatch && i < count-1 {
			continue
		}
		if _, err := s.Commit(ctx, ops...); err != nil {
			return nil, fmt.Errorf("fill the state: %w", err)
		}
		ops = ops[:0]
	}
	return detailed, nil
}

const benchManifestName = "sha256-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

// benchManifest is a pipeline of the size that five lightweight components have.
func benchManifest(namespace string) *skiff.PipelineManifest {
	program := strings.Repeat("def step(rate: float) -> float:\\n    return rate * 2\\n", 35)
	executors := map[string]any{}
	for i := range tasksPerRun {
		executors["exec-"+stepName(i)] = map[string]any{"container": map[string]any{"image": "python:3.11", "command": []string{"sh", "-c", program}}}
	}
	spec, _ := json.Marshal(map[string]any{"pipelineInfo": map[string]string{"name": "train-and-compare"}, "schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0",
		"deploymentSpec": map[string]any{"executors": executors}}) // texts always encode
	return &skiff.PipelineManifest{ObjectMeta: core.ObjectMeta{Name: benchManifestName, Namespace: namespace}, PipelineSpec: spec}
}

// benchRun is the run numbered i of count, from the oldest on. All that lists go
// by is drawn for each, so that the values of an index have nothing to do with the
// runs' ages.
func benchRun(rng *rand.Rand, count, i int) (*skiff.Run, error) {
	run, err := newRun()
	if err != nil {
		return nil, err
	}
	experiment := max(0, rng.IntN(2*kfpExperiments)-kfpExperiments) // half of all are in the first
	run.Namespace = benchNamespace(experiment)
	run.CreationTimestamp = benchEpoch().Add(time.Duration(i-count+1) * time.Second)
	model := []string{"resnet", "vit", "unet", "bert", "gpt", "yolo", "llama", "tabnet"}[rng.IntN(8)]
	task := []string{"train", "tune", "evaluate", "nightly", "backfill"}[rng.IntN(5)]
	run.Spec.DisplayName = fmt.Sprintf("%s %s %07d", task, model, i)
	run.Spec.Manifest = benchManifestName
	run.Spec.Experiment = benchExperiment(experiment)
	run.Spec.Archived = rng.IntN(10) == 0
	if rng.IntN(5) == 0 {
		run.Spec.RecurringRun = benchRecurring(rng.IntN(kfpRecurring))
		run.Spec.ScheduledAt = run.CreationTimestamp
	}
	run.Spec.Parameters["rate"] = json.RawMessage(fmt.Sprintf("%.4f", float64(rng.IntN(1000))/10_000))
	run.Status = skiff.RunStatus{State: skiff.StateSucceeded, StartedAt: run.CreationTimestamp,
		FinishedAt: run.CreationTimestamp.Add(time.Minute + time.Duration(rng.Int64N(int64(6*time.Hour)))),
		TaskCounts: map[skiff.State]int{skiff.StateSucceeded: tasksPerRun}}
	switch drawn := rng.IntN(100); {
	case drawn == 0:
		run.Status.State = skiff.StateCanceled
	case drawn < 8:
		run.Status.State, run.Status.Message = skiff.StateFailed, "train failed"
	case drawn < 60:
		accuracy := rng.Float64()
		run.Status.Metrics = map[string]json.RawMessage{
			"accuracy": json.RawMessage(fmt.Sprintf("%.9f", accuracy)), "loss": json.RawMessage(fmt.Sprintf("%.9f", 1-accuracy))}
	}
	for at, state := range []skiff.State{skiff.StatePending, skiff.StateRunning, run.Status.State} {
		run.Status.History = append(run.Status.History, skiff.StateChange{State: state, At: run.CreationTimestamp.Add(time.Duration(at) * time.Second)})
	}
	return run, nil
}

// benchTasks are a run's tasks.
func benchTasks(run *skiff.Run) []store.Op {
	ops := make([]store.Op, 0, tasksPerRun)
	for i := range tasksPerRun {
		key := stepName(i)
		ops = append(ops, store.Op{Verb: store.Create, Kind: pipeline.Tasks, Object: &skiff.Task{
			ObjectMeta: core.ObjectMeta{Name: run.Name + "." + key, Namespace: run.Namespace},
			Spec:       skiff.TaskSpec{Run: run.Name, Path: key, Key: key, DisplayName: key, Component: "comp-" + key, Type: skiff.TaskContainer},
			Status: skiff.TaskStatus{State: skiff.StateSucceeded, Attempts: 1, Pod: run.Name + "-" + key, StartedAt: run.Status.StartedAt, FinishedAt: run.Status.FinishedAt,
				Outputs: map[string]json.RawMessage{"Output": json.RawMessage(`0.5`)}, OutputArtifacts: map[string][]string{"model": {run.Name + "-model"}}},
		}})
	}
	return ops
}
