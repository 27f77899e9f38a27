package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
	"github.com/skiff-ml/skiff/store/artifact/s3"
)

// Artifacts may be kept in an object store. Steps do not know: they find inputs
// and write outputs in the tree of the repository as always. Before a step's pod
// is made its inputs are brought here; after it has ended its outputs are brought
// there, and only then has the task succeeded.
//
// A store that is away fails neither: the task says what it waits for, and tries
// again until the store's patience ends. Nothing of this is kept but the pod that
// has ended, so a daemon that is killed comes to the same point again, and the
// bucket tells how far the one before had got.

// ObjectStores keep artifacts elsewhere than on this machine, where a namespace
// says so.
type ObjectStores interface {
	// PipelineRoot is a namespace's own default; empty for none.
	PipelineRoot(ctx context.Context, namespace string) (string, error)
	// Endpoint names the store that has a URI's contents; false for this machine.
	Endpoint(ctx context.Context, namespace, uri string) (endpoint string, kept bool, err error)
	// Deliver brings committed contents to their store and says what is there then;
	// nil for contents that stay on this machine. It may be repeated, and goes on where it broke off. progress is
	// called from several goroutines.
	Deliver(ctx context.Context, namespace, uri string, progress func(done, total int64)) (*skiff.Upload, error)
	// Version identifies what a store has under a URI now: artifact.ErrNotFound
	// for nothing.
	Version(ctx context.Context, namespace, uri string) (string, error)
	// Hold keeps contents here until release is called.
	Hold(namespace, uri string) (release func())
}

// DefaultStorePatience is how long a task waits for an object store that is away:
// a weekend's outage costs nobody's training its result.
const DefaultStorePatience = 72 * time.Hour

// inputPatience is how long a step that has not begun waits for its inputs: it
// has nothing to lose.
const inputPatience = 15 * time.Minute

const (
	// firstPause is before the second try, doubled with each up to lastPause.
	firstPause = time.Second
	lastPause  = time.Minute
	// reportAfter keeps transfers that are over in no time silent, and the others
	// from writing more often.
	reportAfter = 2 * time.Second
)

// Reasons of tasks that wait for an object store, or failed because of one.
const (
	reasonFetching    = "FetchingInputs"
	reasonInputsWait  = "InputsWaiting"
	reasonDelivering  = "DeliveringOutputs"
	reasonOutputsWait = "OutputsWaiting"
	reasonStore       = "ObjectStore"
)

// withInputs calls then once everything that a step reads is here.
func (x *execution) withInputs(ctx context.Context, n *node, then func()) {
	if x.c.stores == nil {
		then()
		return
	}
	x.keepHere(n)
	wanted := x.inputsElsewhere(ctx, n)
	if len(wanted) == 0 {
		then()
		return
	}
	namespace := x.run.Namespace
	x.patiently(ctx, n, transfer{
		state: skiff.StatePending, busy: reasonFetching, waiting: reasonInputsWait, what: "its inputs", until: x.c.now().Add(min(x.c.patience, inputPatience)), lasting: s3.Lasting,
		try: func(ctx context.Context, _ func(done, total int64)) error {
			for _, a := range wanted {
				if err := x.c.artifacts.Fetch(ctx, namespace, a.Spec.URI); err != nil {
					return fmt.Errorf("input artifact %q: %w", a.Spec.DisplayName, err)
				}
			}
			return nil
		},
	}, func(err error) {
		switch {
		case err != nil:
			x.fail(n, reasonStore, err)
		case x.cancelling() && !n.exempt:
			x.settle(n, skiff.StateCanceled, reasonCancelled, "the run was cancelled")
		default:
			n.task.Status.Reason, n.task.Status.Message = "", ""
			then()
		}
	})
}

// inputsElsewhere are the inputs that must be fetched, or looked at again, each
// once. One of minio:// that nobody keeps is what it always was: missing; an http
// or https address that nobody may ask is handed on as it is, as on the cluster.
func (x *execution) inputsElsewhere(ctx context.Context, n *node) []*skiff.Artifact {
	var wanted []*skiff.Artifact
	for _, name := range sortedKeys(n.inputs.artifacts) {
		for _, a := range n.inputs.artifacts[name].items {
			at, err := x.c.artifacts.Locate(x.run.Namespace, a.Spec.URI)
			if err != nil || a.Status.Missing || a.Spec.Workspace {
				continue
			}
			_, kept, err := x.c.stores.Endpoint(ctx, x.run.Namespace, a.Spec.URI)
			known := slices.ContainsFunc(wanted, func(w *skiff.Artifact) bool { return w.Spec.URI == a.Spec.URI })
			absent := at.Scheme != "minio" && !at.Web() && !x.c.artifacts.Exists(x.run.Namespace, a.Spec.URI)
			if (kept || err != nil || absent) && !known {
				wanted = append(wanted, a)
			}
		}
	}
	return wanted
}

// webCopy is where the copy of what has an http or https address is; false for
// every other URI, and where there is none.
func (x *execution) webCopy(uri string) (artifact.Location, bool) {
	at, err := x.c.artifacts.Locate(x.run.Namespace, uri)
	return at, err == nil && at.Web() && x.c.artifacts.Exists(x.run.Namespace, uri)
}

// mountWebCopies gives a pod those of its inputs that have an http or https
// address, each by the folder that holds it alone.
func (x *execution) mountWebCopies(pod *core.Pod, s *step) {
	mounted := map[string]bool{}
	for _, name := range sortedKeys(s.input.Inputs.Artifacts) {
		for _, a := range s.input.Inputs.Artifacts[name].Artifacts {
			at, here := x.webCopy(a.URI)
			folder := path.Dir(at.ContainerPath)
			if !here || mounted[folder] {
				continue
			}
			mounted[folder] = true
			key := volumeKey(folder)
			mount(pod, core.Volume{Name: "web-" + shortHash(key), Artifact: &core.ArtifactVolume{Key: key}}, folder, true)
		}
	}
}

// keepHere keeps a step's inputs here until it is settled.
func (x *execution) keepHere(n *node) {
	if n.held != nil || x.c.stores == nil {
		return
	}
	releases := []func(){}
	for _, list := range n.inputs.artifacts {
		for _, a := range list.items {
			releases = append(releases, x.c.stores.Hold(x.run.Namespace, a.Spec.URI))
		}
	}
	n.held = func() {
		for _, release := range releases {
			release()
		}
	}
}

// letGo ends what a settled node was waiting for and gives up what it held.
func (n *node) letGo() {
	if n.transfer != nil {
		n.transfer()
		n.transfer = nil
	}
	if n.held != nil {
		n.held()
		n.held = nil
	}
}

// deliver brings a step's frozen outputs to where they are kept, then settles it.
func (x *execution) deliver(ctx context.Context, n *node, made map[string][]*skiff.Artifact) {
	leaving := x.outputsElsewhere(ctx, made)
	if len(leaving) == 0 {
		x.committed(n, made, nil)
		return
	}
	since := x.c.now()
	if status := containerStatus(n.pod); status != nil && status.Terminated != nil && !status.Terminated.FinishedAt.IsZero() {
		since = status.Terminated.FinishedAt // the same after a restart
	}
	namespace := x.run.Namespace
	x.patiently(ctx, n, transfer{
		state: skiff.StateRunning, busy: reasonDelivering, waiting: reasonOutputsWait, what: "its outputs", until: since.Add(x.c.patience), lasting: spoilt,
		try: func(ctx context.Context, progress func(done, total int64)) error {
			for _, a := range leaving {
				if err := x.c.deliverOne(ctx, namespace, a, progress); err != nil {
					return fmt.Errorf("output artifact %q: %w", a.Spec.Output, err)
				}
			}
			return nil
		},
	}, func(err error) {
		if err != nil {
			x.fail(n, reasonStore, err)
			return
		}
		x.committed(n, made, nil)
	})
}

// spoilt says of an error of Deliver that it is the contents' own fault. All
// others may be mended, be it by new credentials, and the step's work is done.
func spoilt(err error) bool {
	return errors.Is(err, artifact.ErrUnsafe) || errors.Is(err, artifact.ErrInvalid)
}

// outputsElsewhere are the outputs that an object store keeps.
func (x *execution) outputsElsewhere(ctx context.Context, made map[string][]*skiff.Artifact) []*skiff.Artifact {
	if x.c.stores == nil {
		return nil
	}
	var leaving []*skiff.Artifact
	for _, output := range sortedKeys(made) {
		for _, a := range made[output] {
			if a.Spec.Imported {
				continue
			}
			if _, kept, err := x.c.stores.Endpoint(ctx, x.run.Namespace, a.Spec.URI); kept || err != nil {
				leaving = append(leaving, a)
			}
		}
	}
	return leaving
}

// deliverOne brings one output to its store. What the component did not write
// here it may have put there by itself.
func (c *Controller) deliverOne(ctx context.Context, namespace string, a *skiff.Artifact, progress func(done, total int64)) error {
	if a.Status.Missing {
		_, err := c.stores.Version(ctx, namespace, a.Spec.URI)
		if errors.Is(err, artifact.ErrNotFound) {
			return nil
		}
		if err == nil {
			a.Status.Missing, a.Spec.Imported = false, true
		}
		return err
	}
	uploaded, err := c.stores.Deliver(ctx, namespace, a.Spec.URI, progress)
	if err != nil || uploaded == nil {
		return err
	}
	a.Status.Uploaded = uploaded
	if digest, is := contentHash(uploaded.Version); is {
		a.Status.Digest = digest
	}
	return nil
}

// contentHash is a version that is the hash of the contents.
func contentHash(version string) (string, bool) {
	return version, len(version) > len(artifact.DigestPrefix) && version[:len(artifact.DigestPrefix)] == artifact.DigestPrefix
}

// elsewhere reports whether an object store keeps an artifact. Settings that
// cannot be read say nothing; whoever needs the contents is told.
func (x *execution) elsewhere(ctx context.Context, a *skiff.Artifact) bool {
	if x.c.stores == nil {
		return false
	}
	_, kept, err := x.c.stores.Endpoint(ctx, x.run.Namespace, a.Spec.URI)
	return kept && err == nil
}

// keptElsewhere are the artifacts of an earlier result that object stores keep,
// those that the component put there by itself, too.
func (x *execution) keptElsewhere(ctx context.Context, results artifactMap) []*skiff.Artifact {
	var kept []*skiff.Artifact
	for _, output := range sortedKeys(results) {
		for _, a := range results[output].items {
			if !a.Status.Missing && x.elsewhere(ctx, a) {
				kept = append(kept, a)
			}
		}
	}
	return kept
}

// ifKept calls then if the object stores that keep an earlier result's artifacts
// have them as they were made, and otherwise with the reason. Neither is called for
// a node that was settled meanwhile.
func (x *execution) ifKept(ctx context.Context, n *node, results artifactMap, then func(), otherwise func(error)) {
	kept := x.keptElsewhere(ctx, results)
	if len(kept) == 0 {
		then()
		return
	}
	x.outside(ctx, func(working context.Context) func() {
		err := x.c.stillKept(working, kept)
		return func() {
			switch {
			case n.final():
			case err != nil:
				otherwise(err)
			default:
				then()
			}
		}
	})
}

// stillKept looks whether object stores have artifacts as they were made; of what
// skiff did not make, whether they have it, since its owner may change it.
func (c *Controller) stillKept(ctx context.Context, list []*skiff.Artifact) error {
	for _, a := range list {
		version, err := c.stores.Version(ctx, a.Namespace, a.Spec.URI)
		if errors.Is(err, artifact.ErrNotFound) {
			return fmt.Errorf("artifact %s is no longer at %s", a.Spec.DisplayName, a.Spec.URI)
		}
		if err != nil {
			return err
		}
		if a.Spec.Imported {
			continue
		}
		digest, is := contentHash(version)
		if (a.Status.Uploaded != nil && version != a.Status.Uploaded.Version) || (is && a.Status.Digest != "" && digest != a.Status.Digest) {
			return fmt.Errorf("artifact %s at %s has other contents now", a.Spec.DisplayName, a.Spec.URI)
		}
	}
	return nil
}

// versionElsewhere is the version of an artifact that was imported from an object
// store, as it is now; empty for all others.
func (c *Controller) versionElsewhere(ctx context.Context, namespace string, a *skiff.Artifact) (string, error) {
	if c.stores == nil || !a.Spec.Imported {
		return "", nil
	}
	if _, kept, err := c.stores.Endpoint(ctx, namespace, a.Spec.URI); err != nil || !kept {
		return "", err
	}
	version, err := c.stores.Version(ctx, namespace, a.Spec.URI)
	if errors.Is(err, artifact.ErrNotFound) {
		return "", nil // whoever reads it will say so
	}
	return version, err
}

// transfer is work with an object store that a task waits for.
type transfer struct {
	state skiff.State
	// busy and waiting are the task's reasons while it goes on, and while the
	// store is away; what is moved, for messages.
	busy, waiting, what string
	until               time.Time
	// lasting says that an error will not go away.
	lasting func(error) bool
	try     func(ctx context.Context, progress func(done, total int64)) error
}

// patiently tries work until it succeeds, cannot succeed, or its time is over. It
// ends without a word when the node is settled by something else.
func (x *execution) patiently(ctx context.Context, n *node, t transfer, then func(error)) {
	ctx, cancel := context.WithCancel(ctx)
	n.transfer = cancel
	said := x.reporter(n, t)
	x.outside(ctx, func(ctx context.Context) func() {
		err := x.c.transfer(ctx, t, said)
		cancel()
		return func() {
			if !n.final() {
				n.transfer = nil
				then(err)
			}
		}
	})
}

// reporter has a task say how its transfer is getting on.
func (x *execution) reporter(n *node, t transfer) func(reason, message string) {
	return func(reason, message string) {
		x.events.post(event{note: func() {
			status := &n.task.Status
			if n.final() || n.transfer == nil || (status.Reason == reason && status.Message == message) {
				return
			}
			status.State, status.Reason, status.Message = t.state, reason, message
			x.touch(n)
		}})
	}
}

// transfer is the loop behind patiently.
func (c *Controller) transfer(ctx context.Context, t transfer, say func(reason, message string)) error {
	ctx, cancel := context.WithDeadline(ctx, t.until)
	defer cancel()
	began := time.Now()
	progress := throttled(began.Add(reportAfter), func(done, total int64) {
		say(t.busy, fmt.Sprintf("%s are on their way: %d of %d MiB", t.what, done>>20, total>>20))
	})
	pause := c.storePause
	var last error
	for tries := 1; ; tries++ {
		err := t.try(ctx, progress)
		if err == nil || t.lasting(err) {
			return err
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if ctx.Err() == nil {
			say(t.waiting, fmt.Sprintf("waits for %s: %v; tried %d times, again in %s, until %s",
				t.what, last, tries, pause, t.until.UTC().Format(time.RFC3339)))
			_ = c.sleep(ctx, pause) // its error is ctx's, which is looked at next
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("waited for %s until %s: %w", t.what, t.until.UTC().Format(time.RFC3339), last)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		pause = min(2*pause, lastPause)
	}
}

// throttled calls say at most every reportAfter, beginning at first.
func throttled(first time.Time, say func(done, total int64)) func(done, total int64) {
	next := make(chan time.Time, 1) // whoever holds the time may speak
	next <- first
	return func(done, total int64) {
		select {
		case at := <-next:
			if now := time.Now(); now.After(at) {
				say(done, total)
				at = now.Add(reportAfter)
			}
			next <- at
		default: // another is speaking
		}
	}
}

// InUse tells which artifacts the steps of active runs have before them, by what
// the store knows; an object store's copies of them must stay here.
func (c *Controller) InUse(ctx context.Context) (map[s3.Key]bool, error) {
	inUse := map[s3.Key]bool{}
	runs, _, err := store.AllAs[*skiff.Run](ctx, c.store, store.ListOptions{Kind: Runs, Index: IndexActive, Prefix: "active"})
	if err != nil {
		return nil, fmt.Errorf("list active runs: %w", err)
	}
	for _, run := range runs {
		var names []string
		err := c.each(ctx, store.ListOptions{Kind: Tasks, Namespace: run.Namespace, Index: IndexRun, Prefix: run.Name, Exact: true}, func(task *skiff.Task) {
			if task.Status.State.Terminal() {
				return
			}
			for _, list := range task.Status.InputArtifacts {
				names = append(names, list...)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("read the tasks of run %s: %w", run.Name, err)
		}
		for _, name := range names {
			a, err := store.GetAs[*skiff.Artifact](ctx, c.store, store.Key{Kind: Artifacts, Namespace: run.Namespace, Name: name})
			switch {
			case err == nil:
				inUse[s3.Key{Namespace: a.Namespace, URI: a.Spec.URI}] = true
			case !errors.Is(err, store.ErrNotFound):
				return nil, fmt.Errorf("read artifact %s: %w", name, err)
			}
		}
	}
	return inUse, nil
}
