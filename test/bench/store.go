package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

const storeAbout = "Objects are Run objects of about 600 bytes with two indexes, 100 concurrent writers, each write durable " +
	"(value with checksum, change-log row, index rows) before it is answered, in a large store. " +
	"The peer writes the same rows into a copy of the same file by bbolt's own `Batch`. " +
	"\"5 ms sync\" adds 5 ms to every durable write, as a disk without a protected cache does."

const (
	runKind      = "runs.bench"
	byState      = "state"
	byCreated    = "created"
	storeWriters = 100
	activeSet    = 1000
	slowSync     = 5 * time.Millisecond
)

// runs declares the benchmark's kind: lists by state and by age, newest first.
func runs() store.Kind {
	return store.Kind{
		Name: runKind,
		New:  func() core.Object { return &skiff.Run{} },
		Indexes: []store.Index{
			{Name: byState, Values: func(obj core.Object) []string {
				run, ok := obj.(*skiff.Run)
				if !ok {
					return nil
				}
				return []string{string(run.Status.State) + "\x00" + store.TimeValue(run.CreationTimestamp, true)}
			}},
			{Name: byCreated, Values: func(obj core.Object) []string {
				return []string{store.TimeValue(obj.Metadata().CreationTimestamp, true)}
			}},
		},
	}
}

// newRun makes an object like a small pipeline's run.
func newRun() (*skiff.Run, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	return &skiff.Run{
		TypeMeta:   core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.RunKind},
		ObjectMeta: core.ObjectMeta{Namespace: "default", Name: id.String(), Labels: map[string]string{"team": "vision", "experiment": "resnet"}},
		Spec: skiff.RunSpec{
			DisplayName: "train " + id.String()[:8], PipelineName: "train-and-compare",
			Manifest:   "sha256-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
			Parameters: map[string]json.RawMessage{"epochs": json.RawMessage(`20`), "rate": json.RawMessage(`0.001`)},
		},
		Status: skiff.RunStatus{State: skiff.StatePending, TaskCounts: map[skiff.State]int{skiff.StatePending: 4}},
	}, nil
}

// fleet is a store with its objects' names.
type fleet struct {
	s    *store.Store
	path string
	// ids are the objects' names, kept so that the garbage collector has
	// nothing to follow in them.
	ids   []uuid.UUID
	delay atomic.Int64 // injected into every durable write, in nanoseconds
}

func openFleet(ctx context.Context, path string) (*fleet, error) {
	f := &fleet{path: path}
	var err error
	f.s, err = store.Open(ctx, store.Config{
		Path: path, Kinds: f.kinds(),
		BeforeSync: func() {
			if d := f.delay.Load(); d > 0 {
				time.Sleep(time.Duration(d))
			}
		},
	})
	return f, err
}

func (f *fleet) kinds() []store.Kind { return []store.Kind{runs()} }

// fill adds objects until there are count.
func (f *fleet) fill(ctx context.Context, count int) error {
	for len(f.ids) < count {
		ops := make([]store.Op, 0, 500)
		for range min(cap(ops), count-len(f.ids)) {
			run, err := newRun()
			if err != nil {
				return err
			}
			run.Status.State = skiff.StateSucceeded
			ops = append(ops, store.Op{Verb: store.Create, Kind: runKind, Object: run})
			f.ids = append(f.ids, uuid.MustParse(run.Name))
		}
		if _, err := f.s.Commit(ctx, ops...); err != nil {
			return fmt.Errorf("fill the store: %w", err)
		}
	}
	return nil
}

// writeFunc is what a writer does over and over; n counts from 0.
type writeFunc func(ctx context.Context, rng *rand.Rand, writer, n int) error

// roundResult is one round's outcome.
type roundResult struct {
	perSecond float64
	p99       float64 // milliseconds
}

// round lets the writers write for a while.
func round(ctx context.Context, writers int, span time.Duration, write writeFunc) (roundResult, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	begin := time.Now()
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), uint64(begin.UnixNano())))
			var mine []time.Duration
			for n := 0; time.Since(begin) < span; n++ {
				at := time.Now()
				if err := write(ctx, rng, w, n); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
				mine = append(mine, time.Since(at))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	group.Wait()
	if failed != nil {
		return roundResult{}, failed
	}
	elapsed := time.Since(begin).Seconds()
	return roundResult{perSecond: float64(len(all)) / elapsed, p99: percentile(all, 99)}, nil
}

func (f *fleet) create(ctx context.Context, _ *rand.Rand, _, _ int) error {
	run, err := newRun()
	if err != nil {
		return err
	}
	_, err = f.s.Commit(ctx, store.Op{Verb: store.Create, Kind: runKind, Object: run})
	return err
}

// update changes the status of one of ids, as an engine does: read, alter,
// write. Each writer has its own share of them, as each engine has.
func (f *fleet) update(ids []uuid.UUID) writeFunc {
	return func(ctx context.Context, rng *rand.Rand, writer, n int) error {
		share := len(ids) / storeWriters
		key := store.Key{Kind: runKind, Namespace: "default", Name: ids[writer+storeWriters*rng.IntN(share)].String()}
		_, err := store.ModifyAs(ctx, f.s, key, func(run *skiff.Run) error {
			run.Status.State = []skiff.State{skiff.StatePending, skiff.StateRunning, skiff.StateSucceeded}[n%3]
			run.Status.TaskCounts = map[skiff.State]int{skiff.StateRunning: n}
			return nil
		})
		return err
	}
}
