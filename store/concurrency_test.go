package store_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

// TestLostUpdates: many writers count in a few objects through Modify; no count
// is lost and every acknowledged revision is another.
func TestLostUpdates(t *testing.T) {
	s := storetest.Open(t, storetest.ThingKind())
	const writers, each, objects = 20, 50, 3
	fill(t, s, "default", objects)
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				key := storetest.ThingKey("default", fmt.Sprintf("thing-%05d", (w+i)%objects))
				_, err := store.ModifyAs(t.Context(), s, key, func(thing *storetest.Thing) error {
					n, _ := strconv.Atoi(thing.Status.State)
					thing.Status.State = strconv.Itoa(n + 1)
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	total := 0
	things, _, err := store.AllAs[*storetest.Thing](t.Context(), s, store.ListOptions{Kind: storetest.Things})
	if err != nil {
		t.Fatal(err)
	}
	for _, thing := range things {
		n, _ := strconv.Atoi(thing.Status.State)
		total += n
	}
	if total != writers*each {
		t.Errorf("%d of %d updates are there", total, writers*each)
	}
	if err := s.CheckNow(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestUnconditionalWriters: writers that do not compare revisions all succeed,
// however often they come in each other's way, creators of one name once.
func TestUnconditionalWriters(t *testing.T) {
	s := storetest.Open(t, storetest.ThingKind())
	const writers, each = 30, 40
	var group sync.WaitGroup
	var mu sync.Mutex
	created := make(map[string]int)
	for w := range writers {
		group.Go(func() {
			for i := range each {
				thing := storetest.NewThing("default", "shared")
				thing.Status.State = fmt.Sprintf("%d-%d", w, i)
				if _, err := s.Commit(t.Context(), store.Op{Verb: store.Put, Kind: storetest.Things, Object: thing}); err != nil {
					t.Error(err)
					return
				}
				name := fmt.Sprintf("once-%d", i)
				_, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing("default", name)})
				switch {
				case err == nil:
					mu.Lock()
					created[name]++
					mu.Unlock()
				case !errors.Is(err, store.ErrExists):
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if len(created) != each {
		t.Errorf("%d of %d names were created", len(created), each)
	}
	for name, n := range created {
		if n != 1 {
			t.Errorf("%s was created %d times", name, n)
		}
	}
	found, _, err := store.ListAs[*storetest.Thing](t.Context(), s, store.ListOptions{Kind: storetest.Things, Index: storetest.ByState})
	if err != nil || len(found) != 1 {
		t.Errorf("the index has %d entries for one object: %v", len(found), err)
	}
}

// TestWatchersSeeAll: a quick and a slow watcher get the same, in order, while
// the slow one lives from the log on disk.
func TestWatchersSeeAll(t *testing.T) {
	s := storetest.Open(t, storetest.ThingKind())
	const count = 6000 // more than the ring in memory holds
	var quick, slow []uint64
	from := s.Revision()
	watch := func(out *[]uint64, after <-chan struct{}) error {
		w, err := s.Watch(t.Context(), store.WatchOptions{Kinds: []string{storetest.Things}, From: from})
		if err != nil {
			return err
		}
		defer w.Close()
		<-after
		for len(*out) < count {
			events, err := w.Next(t.Context())
			if err != nil {
				return err
			}
			for _, e := range events {
				*out = append(*out, e.Revision)
			}
		}
		return nil
	}
	now, later := make(chan struct{}), make(chan struct{})
	close(now)
	var watchers, writers sync.WaitGroup
	for _, one := range []struct {
		out   *[]uint64
		after chan struct{}
	}{{&quick, now}, {&slow, later}} {
		watchers.Go(func() {
			if err := watch(one.out, one.after); err != nil {
				t.Error(err)
			}
		})
	}
	for w := range 20 {
		writers.Go(func() {
			for i := range count / 20 {
				thing := storetest.NewThing("default", fmt.Sprintf("%d-%d", w, i))
				if _, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Kind: storetest.Things, Object: thing}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(later)
	watchers.Wait()
	for i := range count {
		if want := from + uint64(i) + 1; quick[i] != want || slow[i] != want {
			t.Fatalf("event %d: quick %d, slow %d, want %d", i, quick[i], slow[i], want)
		}
	}
}

// overrun makes more changes than the ring in memory and a log of ten revisions
// hold.
func overrun(t *testing.T, s *store.Store) {
	t.Helper()
	for i := range 30 {
		fill(t, s, fmt.Sprintf("busy-%d", i), 100)
	}
}

// TestQuietWatcherIsNotSentAway: who watches a kind in which nothing happens
// does not fall behind the log by what happens to others.
func TestQuietWatcherIsNotSentAway(t *testing.T) {
	quiet := storetest.ThingKind()
	quiet.Name = "quiet.test"
	cfg := store.Config{Path: t.TempDir() + "/skiff.db", Kinds: []store.Kind{storetest.ThingKind(), quiet}, LogRevisions: 10}
	s := storetest.OpenConfig(t, cfg)
	w, err := s.Watch(t.Context(), store.WatchOptions{Kinds: []string{"quiet.test"}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	overrun(t, s)
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Kind: "quiet.test", Object: storetest.NewThing("default", "a")}); err != nil {
		t.Fatal(err)
	}
	events, err := w.Next(t.Context())
	if err != nil || len(events) != 1 || events[0].Key.Kind != "quiet.test" {
		t.Errorf("events %+v, %v", events, err)
	}
}

// TestSlowWatcherIsSentAway: one that falls behind the log gets ErrGone, and
// the store kept nothing for it.
func TestSlowWatcherIsSentAway(t *testing.T) {
	cfg := store.Config{Path: t.TempDir() + "/skiff.db", Kinds: []store.Kind{storetest.ThingKind()}, LogRevisions: 10}
	s := storetest.OpenConfig(t, cfg)
	w, err := s.Watch(t.Context(), store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	overrun(t, s)
	if _, err := w.Next(t.Context()); !errors.Is(err, store.ErrGone) {
		t.Errorf("next: %v, want ErrGone", err)
	}
	if _, err := s.Watch(t.Context(), store.WatchOptions{From: s.Revision() + 1}); !errors.Is(err, store.ErrGone) {
		t.Errorf("watch from the future: %v, want ErrGone", err)
	}
}

func TestClose(t *testing.T) {
	s := storetest.Open(t, storetest.ThingKind())
	w, err := s.Watch(t.Context(), store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := w.Next(context.Background())
		waiting <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-waiting:
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("a waiting watcher: %v, want ErrClosed", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Close leaves a watcher waiting")
	}
	ctx := t.Context()
	_, getErr := s.Get(ctx, storetest.ThingKey("a", "b"))
	_, listErr := s.List(ctx, store.ListOptions{Kind: storetest.Things})
	_, commitErr := s.Commit(ctx, store.Op{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing("a", "b")})
	_, watchErr := s.Watch(ctx, store.WatchOptions{})
	for name, err := range map[string]error{"get": getErr, "list": listErr, "commit": commitErr, "watch": watchErr, "backup": s.Backup(ctx, nil)} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
}

// TestWithdrawn: a context that ends while the request waits for its turn takes
// it back; one that ends later does not hide the outcome.
func TestWithdrawn(t *testing.T) {
	reached, proceed := make(chan struct{}, 1), make(chan struct{})
	cfg := store.Config{Path: t.TempDir() + "/skiff.db", Kinds: []store.Kind{storetest.ThingKind()}}
	cfg.BeforeSync = func() {
		select {
		case reached <- struct{}{}:
		default:
		}
		<-proceed
	}
	s := storetest.OpenConfig(t, cfg)
	create := func(ctx context.Context, name string) chan error {
		out := make(chan error, 1)
		go func() {
			_, err := s.Commit(ctx, store.Op{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing("a", name)})
			out <- err
		}()
		return out
	}
	firstCtx, cancelFirst := context.WithCancel(t.Context())
	first := create(firstCtx, "first")
	<-reached
	secondCtx, cancelSecond := context.WithCancel(t.Context())
	second := create(secondCtx, "second")
	cancelSecond()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("a request that waits: %v, want Canceled", err)
	}
	cancelFirst()
	close(proceed)
	if err := <-first; err != nil {
		t.Errorf("a request that is being written: %v", err)
	}
	if _, err := s.Get(t.Context(), storetest.ThingKey("a", "first")); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), storetest.ThingKey("a", "second")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the withdrawn one: %v, want ErrNotFound", err)
	}
}

func TestRefusals(t *testing.T) {
	s := storetest.Open(t, storetest.ThingKind())
	long := make([]byte, 2000)
	for i := range long {
		long[i] = 'x'
	}
	for name, ops := range map[string][]store.Op{
		"unknown kind":   {{Verb: store.Create, Kind: "none", Object: storetest.NewThing("a", "b")}},
		"no name":        {{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing("a", "")}},
		"NUL":            {{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing("a", "b\x00c")}},
		"long name":      {{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing("a", string(long))}},
		"no object":      {{Verb: store.Put, Kind: storetest.Things}},
		"no verb":        {{Kind: storetest.Things, Object: storetest.NewThing("a", "b")}},
		"same twice":     {{Verb: store.Put, Kind: storetest.Things, Object: storetest.NewThing("a", "b")}, {Verb: store.Put, Kind: storetest.Things, Object: storetest.NewThing("a", "b")}},
		"delete by kind": {{Verb: store.Delete, Kind: storetest.Things}},
	} {
		before := s.Revision()
		if _, err := s.Commit(t.Context(), ops...); !errors.Is(err, store.ErrInvalid) || s.Revision() != before {
			t.Errorf("%s: %v, revision %d after %d; want ErrInvalid and no change", name, err, s.Revision(), before)
		}
	}
	generated := storetest.NewThing("a", "")
	generated.GenerateName = "run-"
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Kind: storetest.Things, Object: generated}); err != nil || len(generated.Name) != len("run-")+8 {
		t.Errorf("generateName gave %q, %v", generated.Name, err)
	}
}
