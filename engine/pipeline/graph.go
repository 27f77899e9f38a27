package pipeline

import (
	"sort"
	"strconv"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
)

// scope is one instance of a DAG: the root, a sub-DAG, or one pass of a loop.
type scope struct {
	owner     *node // nil for the root
	component *kfp.ComponentSpec
	inputs    inputs
	nodes     map[string]*node
	// order is the keys sorted, so that equal runs start their tasks alike.
	order []string
	// open counts nodes that are not final.
	open int
}

// node is one task in a scope, or one pass of a loop (then its scope is the
// loop's own and loop is set).
type node struct {
	scope     *scope
	loop      *node // for a pass: the loop it belongs to
	key, path string
	spec      *kfp.PipelineTaskSpec
	component *kfp.ComponentSpec
	kind      skiff.TaskType
	task      *skiff.Task
	// created says that the store has the task; dirty that it must be written.
	created, dirty bool
	// counted is the state under which the run counts the task.
	counted skiff.State

	// waiting counts dependencies that are not final.
	waiting    int
	upstream   []*node
	dependents []*node
	// exempt nodes run although the run is being cancelled.
	exempt bool
	// forced nodes are run again as somebody asked for; stale names the task
	// behind which a node comes and that was run again. Both are of resumed runs
	// (see resume.go).
	forced bool
	stale  string

	inputs  inputs
	outputs values
	results artifactMap

	inner *scope // a DAG's or a pass's body
	// For a loop: its items, its passes so far, and how many of them are open.
	items   []item
	passes  []*node
	active  int
	looping bool

	// restarts counts infrastructure restarts of the present attempt, rounds
	// how often a DAG with a retry policy was begun.
	restarts, rounds int
	// pod is the newest attempt's pod as last seen.
	pod *core.Pod
	// transfer ends the one with an object store that the node waits for; held lets
	// the inputs go that are kept here for it. Both are nil where there is none.
	transfer, held func()
	// warm is the gated pod of a step that waits, nil where it has none.
	warm *core.Pod
	// abandon ends a download that is under way, which then settles the node: a
	// run has not ended while something still writes to its workspace. It is nil
	// where there is none.
	abandon func()
}

// values are parameters by name: nil, bool, float64, string, []any or
// map[string]any, as google.protobuf.Value has them.
type values map[string]any

// artifactList is what an artifact input or output holds.
type artifactList struct {
	list  bool
	items []*skiff.Artifact
}

type artifactMap map[string]artifactList

// inputs are the resolved inputs of a task, or those of a scope's component.
type inputs struct {
	params    values
	artifacts artifactMap
}

// item is what one pass of a loop is about.
type item struct {
	param    any
	artifact *skiff.Artifact
}

func (n *node) state() skiff.State { return n.task.Status.State }
func (n *node) final() bool        { return n.task.Status.State.Terminal() }

// begun reports whether anything was ever done for the node.
func (n *node) begun() bool { return !n.task.Status.StartedAt.IsZero() || n.task.Status.Pod != "" }

// passPath is the path of a loop's pass.
func (n *node) passPath(index int) string { return n.childPath() + "/" + strconv.Itoa(index) }

// childPath is the path below which a DAG's children stand: a DAG that is begun
// again has children of its own each time, so that no name is used twice.
func (n *node) childPath() string {
	if n.rounds > 1 {
		return n.path + "~" + strconv.Itoa(n.rounds)
	}
	return n.path
}

// newScope instantiates a component's DAG. The nodes come with tasks of state
// PENDING that nothing has been written of yet.
func (x *execution) newScope(owner *node, component *kfp.ComponentSpec, in inputs) *scope {
	s := &scope{owner: owner, component: component, inputs: in, nodes: make(map[string]*node, len(component.Dag.Tasks))}
	prefix := ""
	if owner != nil {
		prefix = owner.childPath() + "/"
	}
	for key := range component.Dag.Tasks {
		s.order = append(s.order, key)
	}
	sort.Strings(s.order)
	s.open = len(s.order)
	for _, key := range s.order {
		spec := component.Dag.Tasks[key]
		n := &node{scope: s, key: key, path: prefix + key, spec: spec, component: x.ir.Components[spec.ComponentRef.Name]}
		n.kind = x.kindOf(n)
		n.exempt = owner != nil && owner.exempt
		n.task = x.taskFor(n)
		s.nodes[key] = n
	}
	for _, key := range s.order {
		n := s.nodes[key]
		for _, name := range dependencies(n.spec) {
			up := s.nodes[name]
			n.upstream = append(n.upstream, up)
			up.dependents = append(up.dependents, n)
		}
		n.waiting = len(n.upstream)
	}
	x.reconsider(s)
	if x.cancelling() {
		s.exemptExitTasks() // as was done when the run began to be cancelled
	}
	return s
}

// kindOf says what a node is; a loop is a loop whatever its body.
func (x *execution) kindOf(n *node) skiff.TaskType {
	switch {
	case n.loop == nil && (n.spec.ParameterIterator != nil || n.spec.ArtifactIterator != nil):
		return skiff.TaskLoop
	case n.component.Dag != nil && n.loop != nil:
		return skiff.TaskIteration
	case n.component.Dag != nil:
		return skiff.TaskDAG
	case x.ir.DeploymentSpec.Executors[n.component.ExecutorLabel].Importer != nil:
		return skiff.TaskImporter
	default:
		return skiff.TaskContainer
	}
}

// newPass makes the node of one pass of a loop.
func (x *execution) newPass(loop *node, index int) *node {
	n := &node{
		scope: loop.scope, loop: loop, key: loop.key, path: loop.passPath(index),
		spec: loop.spec, component: loop.component, exempt: loop.exempt,
	}
	n.kind = x.kindOf(n)
	n.task = x.taskFor(n)
	n.task.Spec.Iteration = &index
	if x.run.Spec.Retries > 0 {
		x.renew(n, false)
	}
	return n
}

// taskFor is the Task object of a node: the one in the store where the run was
// begun before, a new one otherwise.
func (x *execution) taskFor(n *node) *skiff.Task {
	name := taskName(x.run.Name, n.path)
	if task, known := x.stored[name]; known {
		n.created, n.counted = true, task.Status.State
		delete(x.stored, name)
		x.recallGated(n)
		return task
	}
	n.dirty = true
	x.touched = append(x.touched, n)
	parent := ""
	switch {
	case n.loop != nil:
		parent = n.loop.task.Name
	case n.scope.owner != nil:
		parent = n.scope.owner.task.Name
	}
	return &skiff.Task{
		TypeMeta: core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.TaskKind},
		ObjectMeta: core.ObjectMeta{
			Name: name, Namespace: x.run.Namespace,
			Labels:          map[string]string{core.LabelRun: x.run.Name, core.LabelTask: labelValue(n.path)},
			OwnerReferences: []core.OwnerReference{x.ownedByRun()},
		},
		Spec: skiff.TaskSpec{
			Run: x.run.Name, Path: n.path, Parent: parent, Key: n.key,
			DisplayName: n.spec.TaskInfo.Name, Component: n.spec.ComponentRef.Name, Type: n.kind,
		},
		Status: skiff.TaskStatus{State: skiff.StatePending, Retries: x.run.Spec.Retries},
	}
}

func (x *execution) ownedByRun() core.OwnerReference {
	return core.OwnerReference{APIVersion: skiff.APIVersion, Kind: skiff.RunKind, Name: x.run.Name, UID: x.run.UID, Controller: true}
}

// dependencies are the keys of the tasks that must be final before spec's task
// is looked at: those it names, and the producers of its inputs.
func dependencies(spec *kfp.PipelineTaskSpec) []string {
	names := make(map[string]bool, len(spec.DependentTasks))
	for _, name := range spec.DependentTasks {
		names[name] = true
	}
	for _, p := range spec.Inputs.Parameters {
		switch {
		case p.TaskOutputParameter != nil:
			names[p.TaskOutputParameter.ProducerTask] = true
		case p.TaskFinalStatus != nil:
			names[p.TaskFinalStatus.ProducerTask] = true
		}
	}
	for _, a := range spec.Inputs.Artifacts {
		if a.TaskOutputArtifact != nil {
			names[a.TaskOutputArtifact.ProducerTask] = true
		}
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	return sorted
}
