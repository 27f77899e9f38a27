package kube

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/query"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
)

// Resource is one served kind: its names, what may be done to it and how it is
// printed.
type Resource struct {
	// Group is empty for core.
	Group, Version, Plural, Singular, Kind string
	ShortNames                             []string
	// StoreKind is the name the store knows it by.
	StoreKind string
	// New makes an empty object to decode a patch into.
	New func() core.Object
	// Order is the declared index that lists follow, newest first; empty means
	// by name.
	Order string
	// Labels are indexes that a selector of one label's exact value can use in
	// a list of one namespace.
	Labels map[string]LabelIndex
	// Fields are what field selectors may name, besides metadata.name and
	// metadata.namespace.
	Fields  map[string]Field
	Columns []Column
	// Picked is what lists can be sorted and filtered by beyond their indexes;
	// nil means by nothing.
	Picked func() *query.Listing
	// Create fills a new object's defaults in and checks it; nil means that
	// clients may not make objects of the kind.
	Create func(core.Object) error
	// Patch checks a change that a client asked for, comparing the object
	// before and after, whose defaults it may fill in; nil means that clients
	// may not change the kind.
	Patch func(before, after core.Object) error
	// Replaceable kinds can also be written as a whole (PUT), held to Patch.
	Replaceable bool
	// Shown is what of an object tables hold beside their cells; nil means
	// everything.
	Shown func(core.Object) core.Object
	// Removable says whether an object may be deleted as it is now; nil means
	// that clients may not delete the kind.
	Removable func(core.Object) error
	// Dependents are deleted with an object, in this order.
	Dependents []Dependent
}

// Field is a part of an object that a list can be limited by.
type Field struct {
	Value func(core.Object) string
	// Index, where set, is the store's index by this field. Ordered says that its
	// entries go on behind the value, with what they are in order by.
	Index   string
	Ordered bool
}

// Dependent is a kind whose objects go when the object they belong to goes.
type Dependent struct {
	StoreKind string
	// Index is the store's index by the owner, Value the owner's entry in it.
	Index string
	Value func(owner store.Key) string
	// Keep says which of them stay; nil means none.
	Keep func(core.Object) bool
}

// LabelIndex is a store's index by the value of a label.
type LabelIndex struct {
	Index string
	Value func(namespace, value string) string
}

// Column is one column of a table.
type Column struct {
	Name, Description string
	// Type is "string", "integer" or "date", in the published vocabulary.
	Type string
	// Wide columns are shown by -o wide alone.
	Wide bool
	// Value renders the cell; now is the server's clock, for ages.
	Value func(obj core.Object, now time.Time) any
}

// APIVersion is "version" or "group/version".
func (r *Resource) APIVersion() string {
	if r.Group == "" {
		return r.Version
	}
	return r.Group + "/" + r.Version
}

// QualifiedName is how messages name the resource: "runs.skiff.dev", "pods".
func (r *Resource) QualifiedName() string {
	if r.Group == "" {
		return r.Plural
	}
	return r.Plural + "." + r.Group
}

// root is the path below which the resource's version lives.
func (r *Resource) root() string {
	if r.Group == "" {
		return "/api/" + r.Version
	}
	return "/apis/" + r.Group + "/" + r.Version
}

const skiffGroup, skiffVersion = "skiff.dev", "v1alpha1"

// Resources is everything that is served. A kind is declared here alone.
func Resources() []Resource {
	return append([]Resource{runs(), tasks(), artifacts(), pods(), secrets(), configMaps(), claims()}, kfpResources()...)
}

func runs() Resource {
	run := func(f func(*skiff.Run) any) func(core.Object, time.Time) any {
		return func(o core.Object, _ time.Time) any { return f(o.(*skiff.Run)) }
	}
	return Resource{
		Group: skiffGroup, Version: skiffVersion, Plural: "runs", Singular: "run", Kind: skiff.RunKind,
		StoreKind: "runs.skiff.dev", New: func() core.Object { return &skiff.Run{} },
		Order: "created",
		Fields: map[string]Field{
			"status.state": {Value: func(o core.Object) string { return string(o.(*skiff.Run).Status.State) }},
			// One word for "has not ended", backed by an index, so that it costs
			// the same however many runs there were.
			"status.progress": {Index: "active", Value: func(o core.Object) string {
				if o.(*skiff.Run).Status.State.Terminal() {
					return "ended"
				}
				return "active"
			}},
			"spec.pipelineName": {Value: func(o core.Object) string { return o.(*skiff.Run).Spec.PipelineName }},
			"spec.recurringRun": {Value: func(o core.Object) string { return o.(*skiff.Run).Spec.RecurringRun }, Index: "recurring", Ordered: true},
		},
		Columns: []Column{
			nameColumn(),
			{Name: "Display Name", Type: "string", Value: run(func(r *skiff.Run) any { return r.Spec.DisplayName })},
			{Name: "Pipeline", Type: "string", Value: run(func(r *skiff.Run) any { return r.Spec.PipelineName })},
			{Name: "State", Type: "string", Value: run(func(r *skiff.Run) any { return runState(r) })},
			{Name: "Tasks", Type: "string", Description: "done/all", Value: run(func(r *skiff.Run) any { return taskCount(r) })},
			{Name: "Duration", Type: "string", Value: func(o core.Object, now time.Time) any {
				s := o.(*skiff.Run).Status
				return elapsed(s.StartedAt, s.FinishedAt, now)
			}},
			ageColumn(),
			{Name: "Message", Type: "string", Wide: true, Value: run(func(r *skiff.Run) any { return r.Status.Message })},
		},
		Picked: query.Runs, Patch: patchRun, Removable: runRemovable,
		Dependents: []Dependent{
			{StoreKind: "tasks.skiff.dev", Index: "run", Value: func(run store.Key) string { return run.Name }},
			{StoreKind: "pods", Index: "run", Value: func(run store.Key) string { return run.Namespace + "/" + run.Name }},
			{StoreKind: "artifacts.skiff.dev", Index: "run", Value: func(run store.Key) string { return run.Name }, Keep: func(o core.Object) bool { return o.(*skiff.Artifact).OutlivesRun() }},
			{StoreKind: "persistentvolumeclaims", Index: "owner", Value: func(run store.Key) string { return skiff.RunKind + "/" + run.Name }},
		},
	}
}

func tasks() Resource {
	task := func(f func(*skiff.Task) any) func(core.Object, time.Time) any {
		return func(o core.Object, _ time.Time) any { return f(o.(*skiff.Task)) }
	}
	return Resource{
		Group: skiffGroup, Version: skiffVersion, Plural: "tasks", Singular: "task", Kind: skiff.TaskKind,
		StoreKind: "tasks.skiff.dev", New: func() core.Object { return &skiff.Task{} },
		Fields: map[string]Field{
			"spec.run":     {Value: func(o core.Object) string { return o.(*skiff.Task).Spec.Run }, Index: "run"},
			"status.state": {Value: func(o core.Object) string { return string(o.(*skiff.Task).Status.State) }},
		},
		Columns: []Column{
			nameColumn(),
			{Name: "Run", Type: "string", Value: task(func(t *skiff.Task) any { return t.Spec.Run })},
			{Name: "Task", Type: "string", Value: task(func(t *skiff.Task) any { return t.Spec.Path })},
			{Name: "Type", Type: "string", Wide: true, Value: task(func(t *skiff.Task) any { return string(t.Spec.Type) })},
			{Name: "State", Type: "string", Value: task(func(t *skiff.Task) any { return taskState(t) })},
			{Name: "Attempts", Type: "integer", Value: task(func(t *skiff.Task) any { return t.Status.Attempts })},
			{Name: "Exit", Type: "string", Value: task(func(t *skiff.Task) any { return exitCode(t.Status.ExitCode) })},
			{Name: "Duration", Type: "string", Value: func(o core.Object, now time.Time) any {
				s := o.(*skiff.Task).Status
				return elapsed(s.StartedAt, s.FinishedAt, now)
			}},
			ageColumn(),
			{Name: "Cache", Type: "string", Wide: true, Value: task(func(t *skiff.Task) any { return cacheNote(t) })},
			{Name: "Message", Type: "string", Wide: true, Value: task(func(t *skiff.Task) any { return t.Status.Message })},
		},
	}
}

// cacheNote says why a task has the result of an earlier one, or its own.
func cacheNote(t *skiff.Task) string {
	if t.Status.Reuse != nil && t.Status.Reuse.Reason != "" && !strings.HasPrefix(t.Status.CacheReason, "hit") {
		return t.Status.Reuse.Reason
	}
	return t.Status.CacheReason
}

func artifacts() Resource {
	artifact := func(f func(*skiff.Artifact) any) func(core.Object, time.Time) any {
		return func(o core.Object, _ time.Time) any { return f(o.(*skiff.Artifact)) }
	}
	return Resource{
		Group: skiffGroup, Version: skiffVersion, Plural: "artifacts", Singular: "artifact", Kind: skiff.ArtifactKind,
		StoreKind: "artifacts.skiff.dev", New: func() core.Object { return &skiff.Artifact{} },
		Fields: map[string]Field{
			"spec.run":  {Value: func(o core.Object) string { return o.(*skiff.Artifact).Spec.Run }, Index: "run"},
			"spec.task": {Value: func(o core.Object) string { return o.(*skiff.Artifact).Spec.Task }},
			"spec.uri":  {Value: func(o core.Object) string { return o.(*skiff.Artifact).Spec.URI }},
		},
		Columns: []Column{
			nameColumn(),
			{Name: "Display Name", Type: "string", Value: artifact(func(a *skiff.Artifact) any { return cmp.Or(a.Spec.DisplayName, a.Spec.Output) })},
			{Name: "Type", Type: "string", Value: artifact(func(a *skiff.Artifact) any { return a.Spec.SchemaTitle })},
			{Name: "Run", Type: "string", Value: artifact(func(a *skiff.Artifact) any { return a.Spec.Run })},
			{Name: "Size", Type: "string", Value: artifact(func(a *skiff.Artifact) any {
				switch {
				case a.Status.Purged != nil && a.Status.Purged.Stuck != nil:
					return view.Bytes(a.Status.Size) + " (removing: " + a.Status.Purged.Stuck.Reason + ")"
				case a.Gone() != "":
					return view.Bytes(a.Status.Size) + " (removed)"
				case a.Status.Digest == "" && a.Status.Size == 0:
					return ""
				}
				return view.Bytes(a.Status.Size)
			})},
			{Name: "URI", Type: "string", Value: artifact(func(a *skiff.Artifact) any { return a.Spec.URI })},
			ageColumn(),
			{Name: "Digest", Type: "string", Wide: true, Value: artifact(func(a *skiff.Artifact) any { return a.Status.Digest })},
		},
		Patch: patchArtifact,
	}
}

func pods() Resource {
	pod := func(f func(*core.Pod) any) func(core.Object, time.Time) any {
		return func(o core.Object, _ time.Time) any { return f(o.(*core.Pod)) }
	}
	return Resource{
		Version: "v1", Plural: "pods", Singular: "pod", Kind: core.PodKind, ShortNames: []string{"po"},
		StoreKind: "pods", New: func() core.Object { return &core.Pod{} },
		Labels: map[string]LabelIndex{core.LabelRun: {Index: "run", Value: func(namespace, run string) string { return namespace + "/" + run }}},
		Fields: map[string]Field{
			"status.phase": {Value: func(o core.Object) string { return string(o.(*core.Pod).Status.Phase) }},
		},
		Columns: []Column{
			nameColumn(),
			{Name: "Ready", Type: "string", Value: pod(func(p *core.Pod) any { return podReady(p) })},
			{Name: "Status", Type: "string", Value: pod(func(p *core.Pod) any { return podStatus(p) })},
			{Name: "Restarts", Type: "integer", Value: pod(func(p *core.Pod) any { return podRestarts(p) })},
			ageColumn(),
			{Name: "GPUs", Type: "integer", Value: pod(func(p *core.Pod) any {
				if p.Status.Claim == nil {
					return 0
				}
				return len(p.Status.Claim.GPUs)
			})},
			{Name: "Image", Type: "string", Wide: true, Value: pod(func(p *core.Pod) any {
				if len(p.Spec.Containers) == 0 {
					return ""
				}
				return p.Spec.Containers[0].Image
			})},
			{Name: "Message", Type: "string", Wide: true, Value: pod(func(p *core.Pod) any { return p.Status.Message })},
		},
		Patch: patchPod,
		// Whoever controls the pod ends what runs before it lets the object go.
		Removable: func(core.Object) error { return nil },
	}
}

// runState is the state, and what must not be overlooked of it.
func runState(r *skiff.Run) string {
	state := string(r.Status.State)
	if r.Status.Fake {
		state += " (fake node)"
	}
	if r.Status.Imported != nil {
		state += " (imported)"
	}
	return state
}

func taskState(t *skiff.Task) string {
	if t.Status.Reason == core.ReasonPaused {
		return string(t.Status.State) + " (paused)"
	}
	if t.Status.Reuse != nil && t.Status.Reuse.From != "" {
		return string(t.Status.State) + " (reused)"
	}
	if t.Status.Cached {
		return string(t.Status.State) + " (cached)"
	}
	return string(t.Status.State)
}

// taskCount is "done/all".
func taskCount(r *skiff.Run) string {
	done, all := 0, 0
	for state, n := range r.Status.TaskCounts {
		all += n
		if state.Terminal() {
			done += n
		}
	}
	if all == 0 {
		return ""
	}
	return strconv.Itoa(done) + "/" + strconv.Itoa(all)
}

func exitCode(code *int32) string {
	if code == nil {
		return ""
	}
	return strconv.Itoa(int(*code))
}

func podReady(p *core.Pod) string {
	running := 0
	for _, c := range p.Status.ContainerStatuses {
		if c.Started && c.Terminated == nil {
			running++
		}
	}
	return strconv.Itoa(running) + "/" + strconv.Itoa(len(p.Spec.Containers))
}

// podStatus is the phase, or the reason where it says more.
func podStatus(p *core.Pod) string {
	switch {
	case p.DeletionTimestamp != nil && !p.Status.Phase.Terminal():
		return "Terminating"
	case p.Status.Reason != "" && p.Status.Phase != core.PodRunning && p.Status.Phase != core.PodSucceeded:
		return p.Status.Reason
	case p.Status.Phase == core.PodRunning && p.Status.Reason == core.ReasonPaused:
		return p.Status.Reason
	case p.Status.Phase == core.PodSucceeded:
		return "Completed"
	default:
		return cmp.Or(string(p.Status.Phase), string(core.PodPending))
	}
}

func podRestarts(p *core.Pod) int {
	var n int32
	for _, c := range p.Status.ContainerStatuses {
		n += c.RestartCount
	}
	return int(n)
}
