package pod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
)

// Why a run's work is broken off.
var (
	errDeleted  = errors.New("the pod is being deleted")
	errStopped  = errors.New("the pod was asked to stop")
	errDeadline = errors.New("the pod has run longer than its activeDeadlineSeconds")
)

// run takes one admitted pod from its admission to its end. Its goroutine owns
// units; what reaches it from outside stands under mu.
type run struct {
	c    *Controller
	item scheduler.Item
	dir  string // the pod's folder

	mu      sync.Mutex
	newest  *core.Pod
	removed bool // the watch showed that the object is gone
	// finalized: this run has removed all that the deleted pod left.
	finalized bool
	seen      map[string]runtime.Container // by container name
	settings  map[store.Key]setting        // read so far
	bell      chan struct{}
	cancel    context.CancelCauseFunc // of the work; nil before it begins
	broken    error                   // why the work is to be broken off, beside what the pod says

	units    []*unit
	main     []*unit // of units: the containers that decide the pod's end
	unsure   bool    // a container may exist that nobody has seen
	recorded bool    // the store says Running
	admitted bool    // the work has seen the pod's claim
	granted  bool    // the claim is on its way into the store
}

// unit is one container of the pod, in one of its restarts.
type unit struct {
	container *core.Container
	init      bool // init container or sidecar
	sidecar   bool
	restart   int32
	name      string
	gpus      []string
	image     runtime.Image
	restartAt time.Time // when to start it again, after it ended
	failures  int       // ends in a row, for the back-off
}

func (c *Controller) newRun(p *core.Pod, item scheduler.Item) *run {
	return &run{
		c: c, item: item, newest: p, dir: filepath.Join(c.podsDir, p.UID), admitted: !gated(p),
		seen: make(map[string]runtime.Container), bell: make(chan struct{}, 1),
	}
}

// pod is the newest version known.
func (r *run) pod() *core.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest
}

// update takes in a newer version of the object, and breaks the work off where
// it asks for the end.
func (r *run) update(p *core.Pod) {
	r.mu.Lock()
	if revisionOf(p) > revisionOf(r.newest) {
		r.newest = p
	}
	cause, cancel := stopAsked(r.newest), r.cancel
	r.mu.Unlock()
	if cause != nil && cancel != nil {
		cancel(cause)
	}
	r.ring()
}

// vanish says that the object is gone from the store.
func (r *run) vanish() {
	r.mu.Lock()
	r.removed = true
	cancel := r.cancel
	r.mu.Unlock()
	if cancel != nil {
		cancel(errDeleted)
	}
}

// observe takes in what the backend reports. States only go forward: lists and
// events may overtake each other.
func (r *run) observe(con runtime.Container) {
	if con.State == runtime.StateLost {
		con = r.traces(con)
	}
	r.mu.Lock()
	old, known := r.seen[con.Name]
	if !known || stateRank(con.State) > stateRank(old.State) ||
		(con.State == old.State && (old.ID == "" || (con.Held != nil && old.Held == nil))) {
		r.seen[con.Name] = con
	}
	r.mu.Unlock()
	r.ring()
}

// stateRank orders states by time. An exit record outranks a loss.
func stateRank(s runtime.State) int {
	switch s {
	case runtime.StateWaiting:
		return 1
	case runtime.StateRunning:
		return 2
	case runtime.StateLost:
		return 3
	case runtime.StateExited:
		return 4
	default:
		return 0
	}
}

func (r *run) ring() {
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// state is what is known of the unit's container.
func (r *run) state(u *unit) (runtime.Container, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	con, known := r.seen[u.name]
	return con, known
}

func (r *run) ended(u *unit) bool {
	con, known := r.state(u)
	return known && stateRank(con.State) >= stateRank(runtime.StateLost)
}

// wait returns when something may have changed, when the timer fires (nil:
// never), or with ctx's cause.
func (r *run) wait(ctx context.Context, timer <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.bell:
	case <-timer:
	}
	return nil
}

// live is the run's whole life after the admission is durable. It ends early
// only with ctx: then containers are left as they are.
func (r *run) live(ctx context.Context) {
	end, err := r.work(ctx)
	if ctx.Err() != nil {
		return
	}
	switch {
	case err == nil:
	case !r.asked() || (!r.admitted && errors.Is(err, errCold)):
		var ends bool
		if end, ends = r.brokeWhileWarm(ctx, err); !ends {
			return
		}
	case !errors.As(err, &end):
		end = r.interrupted(err)
	}
	if !r.halt(ctx) {
		return
	}
	if r.deleting() {
		r.c.finalize(ctx, r.pod(), true)
	} else if err := r.finish(ctx, end); err != nil {
		if !errors.Is(err, errMoot) {
			return
		}
		// The object went away while its end was being written.
		r.c.finalize(ctx, r.pod(), true)
	}
	r.c.post(ctx, func() { r.c.released(ctx, r) })
}

// deleting reports whether the object is to go, or has gone.
func (r *run) deleting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removed || r.newest.DeletionTimestamp != nil
}

// work brings the pod up and waits for its end. The error is an *ending where
// the pod could not run, or the cause of the interruption.
func (r *run) work(outer context.Context) (*ending, error) {
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)
	r.mu.Lock()
	r.cancel = cancel
	cause, removed := cmp.Or(stopAsked(r.newest), r.broken), r.removed
	r.mu.Unlock()
	if removed {
		cause = errDeleted
	}
	if cause != nil {
		cancel(cause)
	}
	if limit := r.pod().Spec.ActiveDeadlineSeconds; limit != nil {
		left := r.pod().Status.StartTime.Add(time.Duration(*limit) * time.Second).Sub(r.c.now())
		defer time.AfterFunc(max(0, left), func() { cancel(errDeadline) }).Stop()
	}
	r.plan()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := r.makeFolder(); err != nil {
		return nil, &ending{reason: ReasonConfig, message: "make the pod's folder: " + err.Error(), infrastructure: true}
	}
	if err := r.checkSettings(ctx); err != nil {
		return nil, err
	}
	if err := r.prepareImages(ctx); err != nil {
		return nil, err
	}
	if err := r.initialize(ctx); err != nil {
		return nil, err
	}
	for _, u := range r.main {
		if err := r.bringUp(ctx, u); err != nil {
			return nil, err
		}
	}
	return r.supervise(ctx)
}

// Folders of pods are kept ready, with the control folder of a container of the
// name that steps have.
const (
	spareFolder    = ".spare"
	spareContainer = "main"
	sparePods      = 8
)

func makeSpare(path string) error {
	if err := os.Mkdir(path, 0o711); err != nil {
		return err
	}
	return host.MakeFolder(path, spareContainer)
}

// makeFolder makes the pod's folder, unless it is there.
func (r *run) makeFolder() error {
	if _, err := os.Lstat(r.dir); err == nil {
		return nil
	}
	if r.main[0].container.Name == spareContainer && r.c.spares.Take(func(spare string) error { return os.Rename(spare, r.dir) }) {
		return nil
	}
	if err := os.MkdirAll(r.c.podsDir, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(r.dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// plan lays out the pod's containers and deals the granted devices among them.
func (r *run) plan() {
	p := r.pod()
	var gpus []string
	if p.Status.Claim != nil {
		gpus = p.Status.Claim.GPUs
	}
	restarts := make(map[string]int32)
	for i := range p.Status.ContainerStatuses {
		restarts[p.Status.ContainerStatuses[i].Name] = p.Status.ContainerStatuses[i].RestartCount
	}
	next := 0
	deal := func(c *core.Container, keep bool) []string {
		n := min(deviceCount(c), len(gpus)-next)
		if n <= 0 {
			return nil
		}
		dealt := gpus[next : next+n]
		if keep {
			next += n
		}
		return dealt
	}
	add := func(c *core.Container, init bool) *unit {
		u := &unit{container: c, init: init, sidecar: init && isSidecar(c), restart: restarts[c.Name]}
		u.name = containerName(p.UID, c.Name, u.restart)
		u.gpus = deal(c, !init || u.sidecar)
		r.units = append(r.units, u)
		return u
	}
	for i := range p.Spec.InitContainers {
		add(&p.Spec.InitContainers[i], true)
	}
	for i := range p.Spec.Containers {
		r.main = append(r.main, add(&p.Spec.Containers[i], false))
	}
}

// initialize runs the init containers in order; sidecars only have to start.
func (r *run) initialize(ctx context.Context) error {
	for _, u := range r.units {
		if !u.init {
			continue
		}
		for {
			if err := r.bringUp(ctx, u); err != nil {
				return err
			}
			if u.sidecar {
				break
			}
			for !r.ended(u) {
				if err := r.wait(ctx, nil); err != nil {
					return err
				}
			}
			if r.succeeded(u) {
				break
			}
			if !r.restartable(u) {
				e := r.judge(u)
				e.message = "init " + e.message
				return e
			}
			if err := r.restart(ctx, u); err != nil {
				return err
			}
		}
	}
	return nil
}

// supervise records that the pod runs and waits until every main container has
// ended for good, starting again what is to be started again.
func (r *run) supervise(ctx context.Context) (*ending, error) {
	quiet := time.NewTimer(runningDelay)
	defer quiet.Stop()
	for {
		done, next, err := r.pass(ctx)
		if err != nil {
			return nil, err
		}
		if done {
			return r.verdict(), nil
		}
		var timer <-chan time.Time
		switch {
		case !r.recorded:
			timer = quiet.C
		case !next.IsZero():
			t := time.NewTimer(max(0, next.Sub(r.c.now())))
			defer t.Stop()
			timer = t.C
		}
		select {
		case <-timer:
			if !r.recorded {
				if err := r.recordRunning(ctx); err != nil {
					return nil, err
				}
			}
		case <-r.bell:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// pass looks at every container once. next is when one is due to start again.
func (r *run) pass(ctx context.Context) (done bool, next time.Time, err error) {
	done = true
	for _, u := range r.units {
		if u.init && !u.sidecar {
			continue
		}
		if r.ended(u) {
			if !r.restartable(u) {
				continue
			}
			if u.restartAt.IsZero() {
				u.restartAt = r.c.now().Add(r.backoff(u))
			}
			if wait := u.restartAt.Sub(r.c.now()); wait <= 0 {
				if err := r.restart(ctx, u); err != nil {
					return false, next, err
				}
				if err := r.bringUp(ctx, u); err != nil {
					return false, next, err
				}
			} else if next.IsZero() || u.restartAt.Before(next) {
				next = u.restartAt
			}
		}
		if u.init {
			continue
		}
		done = false
		if retry, err := r.hold(ctx, u); err != nil {
			return false, next, err
		} else if !retry.IsZero() && (next.IsZero() || retry.Before(next)) {
			next = retry
		}
	}
	return done, next, nil
}

// amend changes the run's pod durably. errMoot where the object is gone.
func (r *run) amend(ctx context.Context, change func(*core.Pod) error) error {
	next, err := r.c.amend(ctx, amendment{pod: r.pod(), change: change})
	if err != nil {
		return err
	}
	r.mu.Lock()
	if revisionOf(next[0]) > revisionOf(r.newest) {
		r.newest = next[0]
	}
	r.mu.Unlock()
	return nil
}

// recordRunning is the second commit of a pod's life.
func (r *run) recordRunning(ctx context.Context) error {
	r.recorded = true
	if p := r.pod(); p.Status.Phase == core.PodRunning {
		return nil
	}
	now := r.c.now()
	err := r.amend(ctx, func(p *core.Pod) error {
		p.Status.Phase, p.Status.Reason, p.Status.Message = core.PodRunning, "", r.c.unmatched(p)
		for _, u := range r.units {
			setContainerStatus(p, r.containerStatus(u))
			if con, known := r.state(u); known && con.IP != "" {
				p.Status.PodIP = con.IP
			}
		}
		setCondition(p, "Ready", true, "", "", now)
		return nil
	})
	if errors.Is(err, errMoot) {
		return errDeleted
	}
	return err
}

// say shows people what the pod is at, at the cost of a commit; callers keep
// it rare.
func (r *run) say(ctx context.Context, reason, message string) error {
	if !r.asked() {
		return nil // nobody asked for it yet
	}
	err := r.amend(ctx, func(p *core.Pod) error {
		p.Status.Reason, p.Status.Message = reason, message
		return nil
	})
	if errors.Is(err, errMoot) {
		return errDeleted
	}
	return err
}

// markFile is the file, in the folder of all pods' folders, that has all markers'
// names.
const markFile = ".launch"

// marker is the file that says the unit's command was, or was about to be,
// handed over. It lies where no container can write.
func (r *run) marker(u *unit) string {
	return filepath.Join(r.dir, ".launch-"+controlName(u.container.Name, u.restart))
}

func (r *run) marked(u *unit) bool {
	_, err := os.Lstat(r.marker(u))
	return err == nil
}

// mark makes the marker. All of them are one file, of many names: a name costs
// much less than a file.
func (r *run) mark(u *unit) error {
	path, shared := r.marker(u), filepath.Join(r.c.podsDir, markFile)
	if err := os.Link(shared, path); err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("record the intent to launch: %w", err)
	}
	// It is the first, or the file has all the names that the file system allows.
	_ = os.Remove(shared)
	_ = os.Link(path, shared) // without, each marker is a file
	return f.Close()
}

// succeeded: an exit record with code 0 is the only proof.
func (r *run) succeeded(u *unit) bool {
	con, _ := r.state(u)
	return con.State == runtime.StateExited && con.Exit != nil && con.Exit.ExitCode == 0 && con.Exit.Reason == launch.ReasonCompleted
}
