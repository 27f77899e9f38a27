package recurring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// space is the namespace of these tests.
const space = "default"

// tb is what a *testing.T and a *rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// wall is a wall clock that can be set. It goes by the clock of the test's
// bubble, whose time passes when nothing else happens.
type wall struct {
	mu     sync.Mutex
	offset time.Duration
	alarms map[*wallAlarm]bool
}

func (w *wall) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reading()
}

func (w *wall) reading() time.Time { return time.Now().Add(w.offset).Round(0) }

// jump sets the clock.
func (w *wall) jump(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset += by
	for a := range w.alarms {
		a.arm()
		a.ring()
	}
}

func (w *wall) alarm() (Alarm, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := &wallAlarm{wall: w, c: make(chan struct{}, 1)}
	if w.alarms == nil {
		w.alarms = map[*wallAlarm]bool{}
	}
	w.alarms[a] = true
	return a, nil
}

// wallAlarm is an alarm on a wall; its fields are guarded by the wall's lock.
type wallAlarm struct {
	wall  *wall
	c     chan struct{}
	at    time.Time
	timer *time.Timer
}

var _ Alarm = (*wallAlarm)(nil)

func (a *wallAlarm) Set(at time.Time) error {
	a.wall.mu.Lock()
	defer a.wall.mu.Unlock()
	a.at = at
	a.arm()
	return nil
}

func (a *wallAlarm) arm() {
	if a.timer != nil {
		a.timer.Stop()
	}
	if !a.at.IsZero() {
		a.timer = time.AfterFunc(max(0, a.at.Sub(a.wall.reading())), a.ring)
	}
}

func (a *wallAlarm) ring() {
	select {
	case a.c <- struct{}{}:
	default:
	}
}

func (a *wallAlarm) C() <-chan struct{} { return a.c }

func (a *wallAlarm) Close() error {
	a.wall.mu.Lock()
	defer a.wall.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
	delete(a.wall.alarms, a)
	return nil
}

// pipelines plays engine/pipeline: it refuses what it is told to.
type pipelines struct {
	mu      sync.Mutex
	refuses map[string]bool // by recurring run
	broken  error           // a fault of the machine
	handed  []Submission
}

func (p *pipelines) Prepare(_ context.Context, s Submission) (*skiff.Run, []store.Op, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return nil, nil, p.broken
	}
	if p.refuses[s.RecurringRun] {
		problems := problem.List{}
		problems.Add("parameters.x", "there is no such input")
		return nil, nil, problems
	}
	p.handed = append(p.handed, s)
	run := &skiff.Run{
		TypeMeta:   core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.RunKind},
		ObjectMeta: core.ObjectMeta{Namespace: s.Namespace, Name: s.Name},
		Spec:       skiff.RunSpec{DisplayName: s.DisplayName, RecurringRun: s.RecurringRun, ScheduledAt: s.ScheduledAt, Experiment: s.Experiment, PipelineVersion: s.PipelineVersion},
		Status:     skiff.RunStatus{State: skiff.StatePending},
	}
	return run, []store.Op{{Verb: store.Create, Kind: runsKind, Object: run}}, nil
}

func (p *pipelines) refuse(name string, refuses bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses[name] = refuses
}

func (p *pipelines) breaks(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = err
}

// mortal is a store whose user dies at a commit, before it or after: then no
// answer comes.
type mortal struct {
	store.Interface
	mu    sync.Mutex
	dies  string // "before" or "after" the next commit; empty for not
	death context.CancelFunc
}

func (m *mortal) Commit(ctx context.Context, ops ...store.Op) (uint64, error) {
	m.mu.Lock()
	dies, death := m.dies, m.death
	m.dies = ""
	m.mu.Unlock()
	if dies == "" {
		return m.Interface.Commit(ctx, ops...)
	}
	if dies == "after" {
		if _, err := m.Interface.Commit(ctx, ops...); err != nil {
			return 0, err
		}
	}
	death()
	return 0, context.Canceled
}

// rig is a store with a controller over it, in a bubble of time.
type rig struct {
	t         tb
	store     *store.Store
	mortal    *mortal
	wall      *wall
	pipelines *pipelines
	c         *Controller
	kill      context.CancelFunc
	done      chan struct{} // nil while the controller is down
}

// kinds are the other engines', as far as they matter here.
func kinds() []store.Kind {
	byUID := store.Index{Name: indexID, Values: func(o core.Object) []string { return []string{o.Metadata().UID} }}
	return append(Kinds(),
		store.Kind{Name: runsKind, New: func() core.Object { return new(skiff.Run) }, Indexes: []store.Index{{Name: indexActive, Values: func(o core.Object) []string {
			if o.(*skiff.Run).Status.State.Terminal() {
				return nil
			}
			return []string{"active"}
		}}}},
		store.Kind{Name: manifestsKind, New: func() core.Object { return new(skiff.PipelineManifest) }},
		store.Kind{Name: pipelinesKind, New: func() core.Object { return new(kfp.Pipeline) }, Indexes: []store.Index{byUID}},
		store.Kind{Name: versionsKind, New: func() core.Object { return new(kfp.PipelineVersion) }, Indexes: []store.Index{byUID,
			{Name: indexPipeline, Values: func(o core.Object) []string {
				return []string{o.(*kfp.PipelineVersion).Spec.PipelineName + separator + store.TimeValue(o.Metadata().CreationTimestamp, true)}
			}}}},
	)
}

// manifest is the name of the manifest that every rig has.
const manifest = "m"

func newRig(t tb, dir string) *rig {
	t.Helper()
	w := &wall{}
	s, err := store.Open(context.Background(), store.Config{Path: filepath.Join(dir, "skiff.db"), Kinds: kinds(), Now: w.now})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	r := &rig{t: t, store: s, mortal: &mortal{Interface: s}, wall: w, pipelines: &pipelines{refuses: map[string]bool{}}}
	r.create(manifestsKind, &skiff.PipelineManifest{ObjectMeta: core.ObjectMeta{Namespace: space, Name: manifest}, PipelineSpec: json.RawMessage(`{}`)})
	r.up()
	return r
}

// bubbled runs a test with a rig in a bubble of time.
func bubbled(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, dir)
		defer r.close()
		test(t, r)
	})
}

// up starts a controller; it has done all that is due when this returns.
func (r *rig) up() {
	r.t.Helper()
	c, err := New(Config{Store: r.mortal, Pipelines: r.pipelines, Now: r.wall.now, NewAlarm: r.wall.alarm})
	if err != nil {
		r.t.Fatalf("new controller: %v", err)
	}
	ctx, kill := context.WithCancel(context.Background())
	done := make(chan struct{})
	r.c, r.kill, r.done = c, kill, done
	r.mortal.mu.Lock()
	r.mortal.death = kill
	r.mortal.mu.Unlock()
	go func() {
		defer close(done)
		if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
			r.t.Logf("the controller ended: %v", err)
		}
	}()
	synctest.Wait()
}

// down ends the controller.
func (r *rig) down() {
	r.kill()
	<-r.done
	r.done = nil
}

// dead reports whether the controller has ended by itself.
func (r *rig) dead() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *rig) close() {
	if r.done != nil {
		r.down()
	}
	if err := r.store.Close(); err != nil {
		r.t.Fatalf("close: %v", err)
	}
}

// sleep lets time pass, and all happen that belongs to it.
func (r *rig) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) create(kind string, obj core.Object) {
	r.t.Helper()
	if _, err := r.store.Commit(context.Background(), store.Op{Verb: store.Create, Kind: kind, Object: obj}); err != nil {
		r.t.Fatalf("create: %v", err)
	}
}

// add makes an enabled recurring run of the manifest.
func (r *rig) add(name string, schedule skiff.Schedule, change func(*skiff.RecurringRun)) {
	r.t.Helper()
	obj := &skiff.RecurringRun{
		TypeMeta:   core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.RecurringRunKind},
		ObjectMeta: core.ObjectMeta{Namespace: space, Name: name},
		Spec:       skiff.RecurringRunSpec{DisplayName: name, Manifest: manifest, Schedule: schedule},
	}
	obj.Default()
	if change != nil {
		change(obj)
	}
	r.create(KindName, obj)
	synctest.Wait()
}

func (r *rig) change(name string, change func(*skiff.RecurringRun)) {
	r.t.Helper()
	_, err := store.ModifyAs(context.Background(), r.store, keyOf(space, name), func(obj *skiff.RecurringRun) error { change(obj); return nil })
	if err != nil {
		r.t.Fatalf("change %s: %v", name, err)
	}
	synctest.Wait()
}

func (r *rig) get(name string) *skiff.RecurringRun {
	r.t.Helper()
	obj, err := store.GetAs[*skiff.RecurringRun](context.Background(), r.store, keyOf(space, name))
	if err != nil {
		r.t.Fatalf("get %s: %v", name, err)
	}
	return obj
}

// runs are a recurring run's, by the time that they were made for and then by
// name.
func (r *rig) runs(name string) []*skiff.Run {
	r.t.Helper()
	all, _, err := store.AllAs[*skiff.Run](context.Background(), r.store, store.ListOptions{Kind: runsKind})
	if err != nil {
		r.t.Fatalf("list runs: %v", err)
	}
	all = slices.DeleteFunc(all, func(run *skiff.Run) bool { return run.Spec.RecurringRun != name })
	slices.SortFunc(all, func(a, b *skiff.Run) int { return a.Spec.ScheduledAt.Compare(b.Spec.ScheduledAt) })
	return all
}

// times are those that a recurring run has runs for, as hour, minute and second.
func (r *rig) times(name string) string {
	r.t.Helper()
	text := ""
	for _, run := range r.runs(name) {
		if text != "" {
			text += " "
		}
		if text += run.Spec.ScheduledAt.Format("15:04:05"); run.Spec.ScheduledAt.IsZero() {
			text += "!"
		}
	}
	return text
}

// end ends every active run of a recurring run.
func (r *rig) end(name string) {
	r.t.Helper()
	for _, run := range r.runs(name) {
		if !run.Status.State.Terminal() {
			r.endRun(run.Name)
		}
	}
	synctest.Wait()
}

func (r *rig) endRun(name string) {
	r.t.Helper()
	_, err := store.ModifyAs(context.Background(), r.store, store.Key{Kind: runsKind, Namespace: space, Name: name}, func(run *skiff.Run) error {
		run.Status.State = skiff.StateSucceeded
		return nil
	})
	if err != nil {
		r.t.Fatalf("end run %s: %v", name, err)
	}
}

func (r *rig) expect(name, want string) {
	r.t.Helper()
	if got := r.times(name); got != want {
		r.t.Fatalf("runs of %s are for %q, want %q", name, got, want)
	}
}

// every is an interval.
func every(seconds int64) skiff.Schedule { return skiff.Schedule{IntervalSeconds: seconds} }

// plenty lets as many runs be active as there may be.
func plenty(r *skiff.RecurringRun) { r.Spec.MaxConcurrency = 10 }

func (r *rig) submissions() []string {
	r.pipelines.mu.Lock()
	defer r.pipelines.mu.Unlock()
	var names []string
	for _, s := range r.pipelines.handed {
		names = append(names, fmt.Sprintf("%s %s", s.DisplayName, s.Arguments["a"]))
	}
	return names
}
