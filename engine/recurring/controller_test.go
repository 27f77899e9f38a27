package recurring

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// The bubbles' clock begins at midnight.

func TestInterval(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		r.add("a", every(60), plenty)
		r.sleep(59 * time.Second)
		r.expect("a", "")
		r.sleep(time.Second)
		r.expect("a", "00:01:00")
		r.sleep(2 * time.Minute)
		r.expect("a", "00:01:00 00:02:00 00:03:00")
		got := r.get("a").Status
		want := skiff.RecurringRunStatus{Runs: 3, LastRun: r.runs("a")[2].Name, LastScheduledAt: r.wall.now().UTC(), SettledUntil: r.wall.now().UTC()}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
		for i, run := range r.runs("a") {
			if want := "a-" + string(rune('1'+i)); run.Spec.DisplayName != want || run.Spec.RecurringRun != "a" || run.Name != r.get("a").RunFor(run.Spec.ScheduledAt) {
				t.Errorf("run %d: %s, %+v, want %s", i, run.Name, run.Spec, want)
			}
		}
	})
}

func TestBounds(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		begin := r.wall.now()
		r.add("a", skiff.Schedule{Cron: "*/20 * * * * *", StartTime: begin.Add(time.Minute), EndTime: begin.Add(2 * time.Minute)}, plenty)
		r.sleep(10 * time.Minute)
		r.expect("a", "00:01:20 00:01:40 00:02:00")
	})
}

// TestBackfill: a start in the past is made up for, as far as runs may be active.
func TestBackfill(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		begin := r.wall.now()
		past := func(o *skiff.RecurringRun) { o.Spec.Schedule.StartTime = begin.Add(-3 * time.Hour) }
		r.add("all", every(3600), past)
		r.add("newest", every(3600), func(o *skiff.RecurringRun) { past(o); o.Spec.NoCatchup = true })
		r.expect("all", "22:00:00")
		r.expect("newest", "00:00:00")
		for range 5 {
			r.end("all")
			r.end("newest")
		}
		r.expect("all", "22:00:00 23:00:00 00:00:00")
		r.expect("newest", "00:00:00")
	})
}

func TestConcurrency(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		r.add("all", every(10), func(o *skiff.RecurringRun) { o.Spec.MaxConcurrency = 2 })
		r.add("newest", every(10), func(o *skiff.RecurringRun) { o.Spec.NoCatchup = true })
		r.sleep(time.Minute)
		r.expect("all", "00:00:10 00:00:20")
		r.expect("newest", "00:00:10")
		r.endRun(r.runs("all")[1].Name)
		r.end("newest")
		r.expect("all", "00:00:10 00:00:20 00:00:30")
		r.expect("newest", "00:00:10 00:01:00")
		// A higher bound takes effect at once.
		r.change("all", func(o *skiff.RecurringRun) { o.Spec.MaxConcurrency = 4 })
		r.expect("all", "00:00:10 00:00:20 00:00:30 00:00:40 00:00:50")
		// So does the end of a run by its deletion.
		r.endRun(r.runs("all")[0].Name)
		gone := r.runs("all")[2]
		if _, err := r.store.Commit(t.Context(), store.Op{Verb: store.Delete, Key: store.Key{Kind: runsKind, Namespace: space, Name: gone.Name}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.sleep(time.Second)
		r.expect("all", "00:00:10 00:00:20 00:00:40 00:00:50 00:01:00")
	})
}

func TestDisabled(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		for _, name := range []string{"all", "newest"} {
			r.add(name, every(10), func(o *skiff.RecurringRun) { plenty(o); o.Spec.NoCatchup = name == "newest" })
		}
		set := func(disabled bool) {
			for _, name := range []string{"all", "newest"} {
				r.change(name, func(o *skiff.RecurringRun) { o.Spec.Disabled = disabled })
			}
		}
		r.sleep(15 * time.Second)
		set(true)
		r.sleep(30 * time.Second)
		r.expect("all", "00:00:10")
		set(false)
		r.expect("all", "00:00:10 00:00:20 00:00:30 00:00:40")
		r.expect("newest", "00:00:10 00:00:40")
		r.sleep(5 * time.Second)
		r.expect("newest", "00:00:10 00:00:40 00:00:50")
	})
}

func TestDeleted(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		r.add("a", every(10), plenty)
		r.sleep(10 * time.Second)
		if _, err := r.store.Commit(t.Context(), store.Op{Verb: store.Delete, Key: keyOf(space, "a")}); err != nil {
			t.Fatal(err)
		}
		r.sleep(time.Minute)
		r.expect("a", "00:00:10")
		// One of the same name is another one.
		r.add("a", every(10), plenty)
		r.sleep(10 * time.Second)
		r.expect("a", "00:00:10 00:01:20")
	})
}

// TestEdited: a changed schedule counts from the change on, whatever it would
// have asked for before.
func TestEdited(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		r.add("a", every(3600), plenty)
		r.sleep(90 * time.Minute)
		r.change("a", func(o *skiff.RecurringRun) {
			o.Spec.Schedule = skiff.Schedule{Cron: "0 */20 * * * *"}
			o.Status.SettledUntil = r.wall.now()
		})
		r.expect("a", "01:00:00")
		r.sleep(30 * time.Minute)
		r.expect("a", "01:00:00 01:40:00 02:00:00")
	})
}

// TestRefused: what is refused is said and does not stop the schedule.
func TestRefused(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		r.add("a", every(10), plenty)
		r.pipelines.refuse("a", true)
		r.sleep(35 * time.Second)
		r.expect("a", "")
		s := r.get("a").Status
		if s.Message != "parameters.x: there is no such input" || len(s.Events) != 1 || s.Events[0].Count != 3 || s.Events[0].Reason != skiff.ReasonRefused {
			t.Errorf("status: %+v", s)
		}
		r.pipelines.refuse("a", false)
		r.sleep(5 * time.Second)
		r.expect("a", "00:00:40")
		if s := r.get("a").Status; s.Message != "" || len(s.Events) != 1 || s.Runs != 1 {
			t.Errorf("status after a run: %+v", s)
		}
		// A backlog is refused as a whole: it would be refused one by one.
		r.down()
		r.pipelines.refuse("a", true)
		r.sleep(time.Hour)
		r.up()
		if s := r.get("a").Status; s.Events[0].Count != 4 || !s.SettledUntil.Equal(r.wall.now()) {
			t.Errorf("status after an hour: %+v", s)
		}
	})
}

// TestFault: a fault of the machine settles nothing.
func TestFault(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		r.add("a", every(10), plenty)
		r.pipelines.breaks(errors.New("the disk is full"))
		r.sleep(35 * time.Second)
		r.expect("a", "")
		if s := r.get("a").Status; len(s.Events) > 0 || !s.SettledUntil.IsZero() {
			t.Errorf("status: %+v", s)
		}
		r.pipelines.breaks(nil)
		r.sleep(lastBackoff)
		r.expect("a", "00:00:10 00:00:20 00:00:30 00:00:40 00:00:50 00:01:00 00:01:10 00:01:20 00:01:30")
	})
}

// TestClock: the clock is set forward, back, and the machine sleeps.
func TestClock(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		r.add("all", every(60), plenty)
		r.add("newest", every(60), func(o *skiff.RecurringRun) { plenty(o); o.Spec.NoCatchup = true })
		r.sleep(90 * time.Second)
		r.wall.jump(3 * time.Minute) // 00:04:30
		synctest.Wait()
		r.expect("all", "00:01:00 00:02:00 00:03:00 00:04:00")
		r.expect("newest", "00:01:00 00:04:00")
		r.wall.jump(-3 * time.Minute) // 00:01:30
		r.sleep(3 * time.Minute)
		r.expect("all", "00:01:00 00:02:00 00:03:00 00:04:00")
		r.sleep(30 * time.Second)
		r.expect("all", "00:01:00 00:02:00 00:03:00 00:04:00 00:05:00")
		r.expect("newest", "00:01:00 00:04:00 00:05:00")
	})
}

// TestOnce: where the schedule was set back behind runs that exist, those are not
// made again.
func TestOnce(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		r.add("a", every(10), plenty)
		r.sleep(30 * time.Second)
		r.change("a", func(o *skiff.RecurringRun) { o.Status.SettledUntil = time.Time{} })
		r.expect("a", "00:00:10 00:00:20 00:00:30")
		if s := r.get("a").Status; s.Runs != 3 || !s.SettledUntil.Equal(r.wall.now()) {
			t.Errorf("status: %+v", s)
		}
		r.sleep(10 * time.Second)
		r.expect("a", "00:00:10 00:00:20 00:00:30 00:00:40")
	})
}

func TestTrigger(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		r.add("a", every(60), func(o *skiff.RecurringRun) {
			o.Spec.Parameters = map[string]json.RawMessage{"a": json.RawMessage(`"[[Index]] [[ScheduledTime.15:04:05]]"`)}
		})
		r.sleep(30 * time.Second)
		for range 2 {
			if _, err := r.c.Trigger(t.Context(), space, "a"); err != nil {
				t.Fatal(err)
			}
		}
		r.expect("a", "00:00:00! 00:00:00!")
		// They count among the active ones, and leave the schedule as it is.
		r.sleep(30 * time.Second)
		r.expect("a", "00:00:00! 00:00:00!")
		r.end("a")
		r.expect("a", "00:00:00! 00:00:00! 00:01:00")
		if diff := cmp.Diff([]string{"a-1 1 00:00:30", "a-2 2 00:00:30", "a-3 3 00:01:00"}, r.submissions()); diff != "" {
			t.Errorf("submissions (-want +got):\n%s", diff)
		}
		r.change("a", func(o *skiff.RecurringRun) { o.Spec.Disabled = true })
		if run, err := r.c.Trigger(t.Context(), space, "a"); err != nil || run.Spec.DisplayName != "a-4" {
			t.Errorf("while it is disabled: %+v, %v", run, err)
		}
		r.pipelines.refuse("a", true)
		if _, err := r.c.Trigger(t.Context(), space, "a"); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("a refusal: %v", err)
		}
		if _, err := r.c.Trigger(t.Context(), space, "b"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("what is not there: %v", err)
		}
	})
}

// TestSource: the pipeline's version is the newest at each run, unless one is named.
func TestSource(t *testing.T) {
	bubbled(t, func(t *testing.T, r *rig) {
		version := func(name string) {
			r.create(versionsKind, &kfp.PipelineVersion{ObjectMeta: core.ObjectMeta{Namespace: space, Name: name, UID: name},
				Spec: kfp.PipelineVersionSpec{PipelineName: "p", PipelineSpec: json.RawMessage(`{"x":"` + name + `"}`)}})
		}
		remove := func(kind, name string) {
			if _, err := r.store.Commit(context.Background(), store.Op{Verb: store.Delete, Key: store.Key{Kind: kind, Namespace: space, Name: name}}); err != nil {
				t.Fatal(err)
			}
		}
		r.create(pipelinesKind, &kfp.Pipeline{ObjectMeta: core.ObjectMeta{Namespace: space, Name: "p", UID: "id"}})
		version("v1")
		from := func(id string) func(*skiff.RecurringRun) {
			return func(o *skiff.RecurringRun) {
				plenty(o)
				o.Spec.Manifest, o.Spec.PipelineVersion = "", &skiff.PipelineVersionReference{PipelineID: "id", VersionID: id}
			}
		}
		r.add("newest", every(10), from(""))
		r.add("pinned", every(10), from("v1"))
		r.sleep(10 * time.Second)
		version("v2")
		r.sleep(10 * time.Second)
		remove(versionsKind, "v1")
		r.sleep(10 * time.Second)
		versions := func(name string) (ids []string) {
			for _, run := range r.runs(name) {
				ids = append(ids, run.Spec.PipelineVersion.VersionID)
			}
			return ids
		}
		if diff := cmp.Diff([]string{"v1", "v2", "v2"}, versions("newest")); diff != "" {
			t.Errorf("newest (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"v1", "v1"}, versions("pinned")); diff != "" {
			t.Errorf("pinned (-want +got):\n%s", diff)
		}
		if m := r.get("pinned").Status.Message; !strings.Contains(m, "version v1 is gone") {
			t.Errorf("message: %q", m)
		}
		remove(versionsKind, "v2")
		r.sleep(10 * time.Second)
		if m := r.get("newest").Status.Message; !strings.Contains(m, "has no version any more") {
			t.Errorf("message: %q", m)
		}
		remove(pipelinesKind, "p")
		remove(manifestsKind, manifest)
		r.add("handed in", every(10), nil)
		r.sleep(10 * time.Second)
		if m := r.get("newest").Status.Message; !strings.Contains(m, "pipeline id is gone") {
			t.Errorf("message: %q", m)
		}
		if m := r.get("handed in").Status.Message; !strings.Contains(m, "manifest m is gone") {
			t.Errorf("message: %q", m)
		}
	})
}

// TestMemory: what is disabled, ended or past its end takes none.
func TestMemory(t *testing.T) {
	b := newBook()
	r := &skiff.RecurringRun{ObjectMeta: core.ObjectMeta{Namespace: space, Name: "a"}, Spec: skiff.RecurringRunSpec{Schedule: every(1), MaxConcurrency: 1}}
	run := &skiff.Run{ObjectMeta: core.ObjectMeta{Namespace: space, Name: "r"}, Spec: skiff.RunSpec{RecurringRun: "a"}, Status: skiff.RunStatus{State: skiff.StateRunning}}
	now := time.Unix(100, 0)
	b.hear(news{events: []store.Event{{Type: store.Added, Revision: 1, Object: r}, {Type: store.Added, Revision: 2, Object: run}}})
	b.wake(now)
	if b.take() != nil || len(b.entries) != 1 || len(b.active) != 1 {
		t.Errorf("with an active run: %+v", b)
	}
	ended := *run
	ended.Status.State = skiff.StateFailed
	b.hear(news{events: []store.Event{{Type: store.Modified, Revision: 3, Object: &ended}}})
	b.wake(now)
	e := b.take()
	if e == nil || len(b.active) != 0 {
		t.Fatalf("with none: %+v", b)
	}
	// It is disabled and enabled while an attempt is on its way: there is no second one.
	e.busy = true
	off := *r
	off.Spec.Disabled = true
	b.hear(news{events: []store.Event{{Type: store.Modified, Revision: 4, Object: &off}, {Type: store.Modified, Revision: 5, Object: r}}})
	b.wake(now)
	if b.take() != nil {
		t.Error("there are two attempts at a time")
	}
	b.hear(news{events: []store.Event{{Type: store.Modified, Revision: 6, Object: &off}}})
	b.done(e, 0)
	b.wake(now)
	if b.take() != nil || len(b.entries)+len(b.active)+len(b.times)+len(b.queue)+len(b.dirty) > 0 {
		t.Errorf("in the end: %+v", b)
	}
}

// TestRealAlarm: the kernel's timer rings at its time and at no other.
func TestRealAlarm(t *testing.T) {
	a, err := NewAlarm()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	wait := func(at time.Time) {
		t.Helper()
		if err := a.Set(at); err != nil {
			t.Fatal(err)
		}
		select {
		case <-a.C():
		case <-time.After(20 * time.Second):
			t.Fatalf("it does not ring for %s", at)
		}
		if now := time.Now(); now.Before(at) {
			t.Errorf("it rings at %s for %s", now, at)
		}
	}
	wait(time.Now().Add(30 * time.Millisecond))
	wait(time.Now().Add(-time.Hour))
	wait(time.Unix(-5, 0))
	for _, never := range []time.Time{{}, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if err := a.Set(never); err != nil {
			t.Fatal(err)
		}
		select {
		case <-a.C():
			t.Errorf("it rings for %s", never)
		case <-time.After(30 * time.Millisecond):
		}
	}
}
