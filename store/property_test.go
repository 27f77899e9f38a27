package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

func TestMain(m *testing.M) {
	if code, child := runChild(); child {
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

// machine drives a store and its model side by side.
type machine struct {
	dir     string
	s       *store.Store
	model   *storetest.Model
	watch   store.Watcher
	watched int // how many of the model's events the watcher has delivered
}

func (m *machine) config() store.Config {
	// A small log and small pages of time, so that their edges are met.
	return store.Config{Path: filepath.Join(m.dir, "skiff.db"), Kinds: []store.Kind{storetest.ThingKind()}, LogRevisions: 40}
}

func (m *machine) open(t *rapid.T) {
	s, err := store.Open(context.Background(), m.config())
	if err != nil {
		t.Fatal(err)
	}
	m.s = s
	m.rewatch(t, s.Revision())
}

func (m *machine) rewatch(t *rapid.T, from uint64) {
	if m.watch != nil {
		m.watch.Close()
	}
	var err error
	if m.watch, err = m.s.Watch(context.Background(), store.WatchOptions{Kinds: []string{storetest.Things}, From: from}); err != nil {
		t.Fatal(err)
	}
	m.watched = 0
	for _, e := range m.model.Events {
		if e.Revision <= from {
			m.watched++
		}
	}
}

func (m *machine) close(t *rapid.T) {
	m.watch.Close()
	m.watch = nil
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
}

var (
	genNamespace = rapid.SampledFrom([]string{"a", "b", "ab", ""})
	genName      = rapid.SampledFrom([]string{"x", "y", "z", "xx", "x-1"})
	genState     = rapid.SampledFrom([]string{"", "A", "AB", "A\x00", "A\x00\x01", "A\xff", "B"})
	genTags      = rapid.SliceOfN(rapid.SampledFrom([]string{"", "t", "tt", "t\x00", "\x00\xff", "\x00\x01", "u"}), 0, 4)
)

// drawOp makes an op that may or may not be fitting.
func (m *machine) drawOp(t *rapid.T) store.Op {
	namespace, name := genNamespace.Draw(t, "namespace"), genName.Draw(t, "name")
	key := storetest.ThingKey(namespace, name)
	version := ""
	if old := m.model.Objects[key]; old != nil && rapid.Bool().Draw(t, "versioned") {
		version = old.ResourceVersion
	} else if rapid.IntRange(0, 9).Draw(t, "stale") == 0 {
		version = "1"
	}
	verb := rapid.SampledFrom([]store.Verb{store.Create, store.Update, store.Put, store.Put, store.Delete}).Draw(t, "verb")
	if verb == store.Delete {
		return store.Op{Verb: verb, Key: key, ResourceVersion: version}
	}
	thing := storetest.NewThing(namespace, name)
	thing.ResourceVersion = version
	if verb == store.Create {
		thing.ResourceVersion = ""
	}
	thing.Spec.Text = rapid.SampledFrom([]string{"", "one", "two", `"quoted" <&> \`}).Draw(t, "text")
	thing.Spec.Tags = validTags(genTags.Draw(t, "tags"))
	thing.Status.State = strings.ToValidUTF8(genState.Draw(t, "state"), "?")
	if rapid.IntRange(0, 3).Draw(t, "finalized") == 0 {
		thing.Finalizers = []string{"hold"}
	}
	return store.Op{Verb: verb, Kind: storetest.Things, Object: thing}
}

// validTags: JSON holds no other bytes than UTF-8; an index does, but not from
// a field of an object.
func validTags(tags []string) []string {
	for i := range tags {
		tags[i] = strings.ToValidUTF8(tags[i], "\x7f")
	}
	if len(tags) == 0 {
		return nil
	}
	return tags
}

func (m *machine) commit(t *rapid.T) {
	for range rapid.IntRange(1, 6).Draw(t, "commits") {
		m.commitOne(t)
	}
}

func (m *machine) commitOne(t *rapid.T) {
	var ops []store.Op
	for range rapid.IntRange(1, 4).Draw(t, "ops") {
		ops = append(ops, m.drawOp(t))
	}
	var copies []store.Op
	for _, op := range ops {
		if thing, ok := op.Object.(*storetest.Thing); ok {
			op.Object = storetest.Clone(thing)
		}
		copies = append(copies, op)
	}
	want, wantErr := m.model.Commit(copies...)
	got, gotErr := m.s.Commit(context.Background(), ops...)
	if !storetest.SameClass(gotErr, wantErr) {
		t.Fatalf("commit: %v, the model says %v", gotErr, wantErr)
	}
	if gotErr != nil {
		return
	}
	if got != want {
		t.Fatalf("commit gave revision %d, the model says %d", got, want)
	}
	for i, op := range ops {
		if thing, ok := op.Object.(*storetest.Thing); ok {
			m.model.Settle(thing)
			continue
		}
		m.settleMark(t, copies[i].Key)
	}
}

// settleMark takes the time of a deletion over.
func (m *machine) settleMark(t *rapid.T, key store.Key) {
	if m.model.Objects[key] == nil {
		return
	}
	thing, err := store.GetAs[*storetest.Thing](context.Background(), m.s, key)
	if err != nil {
		t.Fatal(err)
	}
	m.model.Settle(thing)
}

func (m *machine) get(t *rapid.T) {
	key := storetest.ThingKey(genNamespace.Draw(t, "namespace"), genName.Draw(t, "name"))
	got, err := store.GetAs[*storetest.Thing](context.Background(), m.s, key)
	want := m.model.Objects[key]
	if want == nil {
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("get %s: %v, want ErrNotFound", key, err)
		}
		return
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("get %s: %v (-model +store):\n%s", key, err, diff)
	}
}

func (m *machine) list(t *rapid.T) {
	opts := store.ListOptions{
		Kind:      storetest.Things,
		Namespace: rapid.SampledFrom([]string{"", "a", "b", "none"}).Draw(t, "namespace"),
		Index:     rapid.SampledFrom([]string{"", storetest.ByState, storetest.ByTag}).Draw(t, "index"),
		Limit:     rapid.IntRange(1, 5).Draw(t, "limit"),
	}
	if opts.Index != "" {
		opts.Prefix = rapid.SampledFrom([]string{"", "A", "A\x00", "t", "\x00", "u"}).Draw(t, "prefix")
		opts.Exact = rapid.Bool().Draw(t, "exact")
	}
	want := m.model.List(opts)
	got := []*storetest.Thing{}
	for {
		items, page, err := store.ListAs[*storetest.Thing](context.Background(), m.s, opts)
		if err != nil {
			t.Fatal(err)
		}
		if page.Revision != m.model.Revision {
			t.Fatalf("a page is of revision %d, the model of %d", page.Revision, m.model.Revision)
		}
		if len(items) > opts.Limit || len(items) < opts.Limit && page.Continue != "" {
			t.Fatalf("a page has %d items of %d, continue %q", len(items), opts.Limit, page.Continue)
		}
		got = append(got, items...)
		if page.Continue == "" {
			break
		}
		opts.Continue = page.Continue
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("list %+v (-model +store):\n%s", opts, diff)
	}
}

// next takes all that the watcher has and compares it with the model's events.
func (m *machine) next(t *rapid.T) {
	for m.watched < len(m.model.Events) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		events, err := m.watch.Next(ctx)
		cancel()
		if errors.Is(err, store.ErrGone) {
			// Only one who slept through more than the log holds is sent away.
			if first := m.model.Events[m.watched].Revision; m.model.Revision-first < 40 {
				t.Fatalf("revision %d is gone at %d: %v", first, m.model.Revision, err)
			}
			m.rewatch(t, m.model.Revision)
			return
		}
		if err != nil {
			t.Fatalf("watch at %d of %d events: %v", m.watched, len(m.model.Events), err)
		}
		for _, e := range events {
			if m.watched == len(m.model.Events) {
				t.Fatalf("an event too many: %s %s at %d", e.Type, e.Key, e.Revision)
			}
			want := m.model.Events[m.watched]
			m.watched++
			if e.Type != want.Type || e.Revision != want.Revision || e.Key != storetest.ThingKey(want.Thing.Namespace, want.Thing.Name) {
				t.Fatalf("event %s %s at %d, the model says %s %s at %d", e.Type, e.Key, e.Revision, want.Type, want.Thing.Name, want.Revision)
			}
			if diff := diffEvent(want.Thing, e); diff != "" {
				t.Fatalf("the object of event %d (-model +store):\n%s", e.Revision, diff)
			}
		}
		if last := events[len(events)-1].Revision; m.watched < len(m.model.Events) && m.model.Events[m.watched].Revision == last {
			t.Fatalf("the commit of revision %d was taken apart", last)
		}
	}
}

func diffEvent(want *storetest.Thing, e store.Event) string {
	got, ok := e.Object.(*storetest.Thing)
	if !ok {
		return "it is no Thing"
	}
	return cmp.Diff(want, got)
}

// resume begins a watch at some old revision; too old is ErrGone.
func (m *machine) resume(t *rapid.T) {
	behind := rapid.Uint64Range(0, 60).Draw(t, "behind")
	from := m.model.Revision - min(behind, m.model.Revision-1)
	w, err := m.s.Watch(context.Background(), store.WatchOptions{From: from})
	if errors.Is(err, store.ErrGone) {
		if m.model.Revision-from < 40 {
			t.Fatalf("revision %d is gone at %d", from, m.model.Revision)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if m.model.Revision-from > 40+64 {
		t.Fatalf("revision %d is not gone at %d", from, m.model.Revision)
	}
	m.rewatch(t, from)
}

func (m *machine) reopen(t *rapid.T) {
	id := m.s.ID()
	m.next(t)
	m.close(t)
	if err := store.Check(context.Background(), m.config().Path, true); err != nil {
		t.Fatal(err)
	}
	m.open(t)
	if m.s.ID() != id || !m.s.Health().ClosedInOrder {
		t.Fatalf("after reopening: id %s was %s, health %+v", m.s.ID(), id, m.s.Health())
	}
}

func (m *machine) check(t *rapid.T) {
	if got := m.s.Revision(); got != m.model.Revision {
		t.Fatalf("the store is at revision %d, the model at %d", got, m.model.Revision)
	}
}

// TestAgainstModel runs random histories on a store and on the model.
func TestAgainstModel(tt *testing.T) {
	rapid.Check(tt, func(t *rapid.T) {
		dir := tt.TempDir()
		defer func() { _ = os.RemoveAll(dir) }()
		m := &machine{dir: dir, model: storetest.NewModel(1)}
		m.open(t)
		defer func() {
			if m.watch != nil {
				m.close(t)
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"commit": m.commit, "commit2": m.commit, "commit3": m.commit, "commit4": m.commit,
			"get": m.get, "list": m.list, "list2": m.list, "next": m.next, "resume": m.resume, "reopen": m.reopen,
			"": m.check,
		})
		m.next(t)
		if err := m.s.CheckNow(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestEventsAreJSONTrue: a decoded event is the object as it was committed, also
// where it came from the log on disk.
func TestEventsAreJSONTrue(t *testing.T) {
	s := storetest.Open(t, storetest.ThingKind())
	from := s.Revision()
	thing := storetest.NewThing("n", "a")
	thing.Labels = map[string]string{"k": "v"}
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Kind: storetest.Things, Object: thing}); err != nil {
		t.Fatal(err)
	}
	w, err := s.Watch(t.Context(), store.WatchOptions{From: from})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	events, err := w.Next(t.Context())
	if err != nil || len(events) != 1 {
		t.Fatalf("events %v, %v", events, err)
	}
	want, err := json.Marshal(thing)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(events[0].Object)
	if err != nil || string(got) != string(want) {
		t.Errorf("event holds %s, want %s (%v)", got, want, err)
	}
}
