package recurring

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/api/skiff"
)

// expected is what a recurring run should have done, second by second, in the
// simplest words that there are for it.
type expected struct {
	cron           int64 // a run when the second of the day divides by it; 0 for an interval
	interval       int64
	end            int64 // in seconds as all times here; 0 for none
	noCatchup, off bool
	refused        bool
	most           int

	from     int64 // times up to it are settled
	made     map[int64]bool
	active   int
	runs     int64
	refusals int64
}

// next is the first time after a second, 0 for none.
func (e *expected) next(after int64) int64 {
	at := after + e.interval
	if e.cron > 0 {
		for at = after + 1; at%86400%e.cron != 0; {
			at++
		}
	}
	if e.end > 0 && at > e.end {
		return 0
	}
	return at
}

// tick is everything that happens at a second.
func (e *expected) tick(now int64) {
	for !e.off && e.active < e.most {
		at := e.next(e.from)
		if at == 0 || at > now {
			return
		}
		newest := at
		for later := at; later != 0 && later <= now; later = e.next(later) {
			newest = later
		}
		switch {
		case e.refused:
			e.from = newest
			e.refusals++
			continue
		case e.noCatchup:
			at = newest
		}
		e.from = at
		if !e.made[at] {
			e.made[at] = true
			e.active++
			e.runs++
		}
	}
}

// String is the state as it is compared.
func (e *expected) String() string {
	var times []int64
	for at := range e.made {
		times = append(times, at)
	}
	slices.Sort(times)
	return fmt.Sprintf("runs %v, %d active, %d in all, %d refused", times, e.active, e.runs, e.refusals)
}

// observed is the same of the store.
func (r *rig) observed(name string) string {
	r.t.Helper()
	obj := r.get(name)
	times := []int64{}
	active := 0
	for _, run := range r.runs(name) {
		if !run.Spec.ScheduledAt.IsZero() {
			times = append(times, run.Spec.ScheduledAt.Unix())
		}
		if !run.Status.State.Terminal() {
			active++
		}
	}
	refusals := int64(0)
	for _, event := range obj.Status.Events {
		refusals += event.Count
	}
	return fmt.Sprintf("runs %v, %d active, %d in all, %d refused", times, active, obj.Status.Runs, refusals)
}

// TestModel lets recurring runs live through everything that can happen to them:
// time, ends of runs, edits, refusals, a clock that is set, and a controller that
// is stopped, or dies before or after a write. After every second their runs are
// those of the model.
func TestModel(t *testing.T) {
	base := t.TempDir()
	if _, err := os.Stat("/dev/shm"); err == nil {
		// Thousands of durable writes: they need not wait for a disk here.
		if base, err = os.MkdirTemp("/dev/shm", "skiff-recurring-"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.RemoveAll(base); err != nil {
				t.Error(err)
			}
		}()
	}
	rapid.Check(t, func(drawn *rapid.T) {
		dir, err := os.MkdirTemp(base, "")
		if err != nil {
			drawn.Fatalf("%v", err)
		}
		// Rapid ends a draw by a panic, which must leave the bubble as one.
		var ended any
		synctest.Test(t, func(*testing.T) {
			r := newRig(drawn, dir)
			defer r.close()
			defer func() { ended = recover() }()
			live(drawn, r)
		})
		if ended != nil {
			panic(ended)
		}
	})
}

func live(t *rapid.T, r *rig) {
	names := []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(t, "recurring runs")]
	model := map[string]*expected{}
	for _, name := range names {
		model[name] = draw(t, r, name)
	}
	tick := func() {
		for _, e := range model {
			e.tick(r.wall.now().Unix())
		}
	}
	compare := func(what string) {
		t.Helper()
		for _, name := range names {
			if got, want := r.observed(name), model[name].String(); got != want {
				t.Fatalf("after %s, %s has\n%s\nwant\n%s", what, name, got, want)
			}
		}
	}
	pass := func(seconds int) {
		for range seconds {
			r.sleep(time.Second)
			if r.done != nil && r.dead() {
				r.up() // at once: so the model need not know of it
			}
			if r.done != nil {
				tick()
			}
		}
	}
	tick()
	compare("the creation")
	for range rapid.IntRange(1, 50).Draw(t, "steps") {
		name := rapid.SampledFrom(names).Draw(t, "name")
		e := model[name]
		step := rapid.SampledFrom([]string{"pass", "pass", "end", "end", "off", "off", "refuse", "jump", "jump", "stop", "die", "edit", "set back", "bound", "trigger"}).Draw(t, "step")
		switch step {
		case "pass":
			pass(rapid.IntRange(1, 90).Draw(t, "seconds"))
		case "end":
			r.end(name)
			e.active = 0
		case "off":
			e.off = !e.off
			r.change(name, func(o *skiff.RecurringRun) { o.Spec.Disabled = e.off })
		case "refuse":
			e.refused = !e.refused
			r.pipelines.refuse(name, e.refused)
		case "jump":
			r.wall.jump(time.Duration(rapid.IntRange(-300, 300).Draw(t, "by")) * time.Second)
			synctest.Wait()
		case "stop":
			if r.done != nil {
				r.down()
			} else {
				r.up()
			}
		case "die":
			r.mortal.mu.Lock()
			r.mortal.dies = rapid.SampledFrom([]string{"before", "after"}).Draw(t, "dies")
			r.mortal.mu.Unlock()
			pass(rapid.IntRange(1, 30).Draw(t, "seconds"))
			r.mortal.mu.Lock()
			r.mortal.dies = ""
			r.mortal.mu.Unlock()
		case "edit":
			changed := drawTimes(t, r)
			e.cron, e.interval, e.end, e.from = changed.cron, changed.interval, changed.end, r.wall.now().Unix()
			r.change(name, func(o *skiff.RecurringRun) {
				o.Spec.Schedule, o.Status.SettledUntil = changed.schedule(), r.wall.now()
			})
		case "set back":
			// As a backup does that is put in place while the runs are kept.
			e.from -= rapid.Int64Range(0, 200).Draw(t, "by")
			r.change(name, func(o *skiff.RecurringRun) {
				// A zero time would mean that nothing was settled yet.
				o.Status.SettledUntil, o.Spec.Schedule.StartTime = time.Unix(e.from, 0), time.Time{}
			})
		case "bound":
			e.most = rapid.IntRange(1, 10).Draw(t, "most")
			r.change(name, func(o *skiff.RecurringRun) { o.Spec.MaxConcurrency = e.most })
		case "trigger":
			if e.refused {
				continue
			}
			if _, err := r.c.Trigger(context.Background(), space, name); err != nil {
				t.Fatalf("trigger: %v", err)
			}
			e.active++
			e.runs++
			synctest.Wait()
		}
		if r.done != nil && r.dead() {
			r.up()
		}
		if r.done != nil {
			tick()
		}
		compare(step)
	}
}

func drawTimes(t *rapid.T, r *rig) *expected {
	e := &expected{made: map[int64]bool{}}
	if rapid.Bool().Draw(t, "cron") {
		e.cron = rapid.SampledFrom([]int64{1, 5, 10, 60, 300}).Draw(t, "every")
	} else {
		e.interval = rapid.Int64Range(1, 120).Draw(t, "interval")
	}
	if rapid.IntRange(1, 4).Draw(t, "bounded") == 1 {
		e.end = r.wall.now().Unix() + rapid.Int64Range(1, 300).Draw(t, "end")
	}
	return e
}

func (e *expected) schedule() skiff.Schedule {
	s := skiff.Schedule{IntervalSeconds: e.interval}
	switch {
	case e.cron >= 60:
		s.Cron = fmt.Sprintf("0 */%d * * * *", e.cron/60)
	case e.cron > 0:
		s.Cron = fmt.Sprintf("*/%d * * * * *", e.cron)
	}
	if e.end > 0 {
		s.EndTime = time.Unix(e.end, 0)
	}
	return s
}

// draw makes a recurring run, and what is expected of it.
func draw(t *rapid.T, r *rig, name string) *expected {
	e := drawTimes(t, r)
	e.most, e.noCatchup = rapid.IntRange(1, 10).Draw(t, "most"), rapid.Bool().Draw(t, "no catch-up")
	e.from = r.wall.now().Unix()
	s := e.schedule()
	if rapid.IntRange(1, 3).Draw(t, "started") == 1 {
		e.from += rapid.Int64Range(-200, 100).Draw(t, "start")
		s.StartTime = time.Unix(e.from, 0)
		if e.end > 0 && e.end <= e.from {
			e.end = 0
			s.EndTime = time.Time{}
		}
	}
	r.add(name, s, func(o *skiff.RecurringRun) {
		o.Spec.NoCatchup, o.Spec.MaxConcurrency = e.noCatchup, e.most
		if problems := o.Validate(); len(problems) > 0 {
			t.Fatalf("%s", strings.ReplaceAll(problems.Error(), "\n", "; "))
		}
	})
	return e
}
