package kfp

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/query"
	"github.com/skiff-ml/skiff/store"
)

// ofRun lists a run's tasks or artifacts.
func ofRun(kind string, r *core.ObjectMeta) store.ListOptions {
	return store.ListOptions{Kind: kind, Namespace: r.Namespace, Index: byRun, Prefix: r.Name, Exact: true}
}

// details are a run's tasks in the order they began, those that have not after
// them.
func (a *API) details(ctx context.Context, r *skiff.Run) (*runDetails, error) {
	var tasks []*skiff.Task
	err := a.each(ctx, ofRun(tasksKind, &r.ObjectMeta), func(obj core.Object) error {
		tasks = append(tasks, obj.(*skiff.Task))
		return nil
	})
	if err != nil || len(tasks) == 0 {
		return nil, err
	}
	slices.SortFunc(tasks, func(a, b *skiff.Task) int {
		started, other := a.Status.StartedAt, b.Status.StartedAt
		if started.IsZero() != other.IsZero() {
			if started.IsZero() {
				return 1
			}
			return -1
		}
		return cmp.Or(started.Compare(other), strings.Compare(a.Spec.Path, b.Spec.Path))
	})
	children := map[string][]childTask{}
	for _, t := range tasks {
		if t.Spec.Parent != "" {
			children[t.Spec.Parent] = append(children[t.Spec.Parent], childTask{TaskID: t.Name})
		}
	}
	details := &runDetails{}
	for _, t := range tasks {
		details.TaskDetails = append(details.TaskDetails, taskMessage(t, children[t.Name]))
	}
	return details, nil
}

// taskStateOf is a task's state in the published words; PAUSED is one of them.
func taskStateOf(t *skiff.Task) string {
	if t.Status.Reason == core.ReasonPaused && t.Status.State == skiff.StateRunning {
		return "PAUSED"
	}
	return query.StateOf(t.Status.State)
}

func taskMessage(t *skiff.Task, children []childTask) taskDetail {
	m := taskDetail{
		RunID: t.Spec.Run, TaskID: t.Name, DisplayName: taskTitle(t), CreateTime: stamp(t.CreationTimestamp),
		StartTime: stamp(t.Status.StartedAt), EndTime: stamp(t.Status.FinishedAt), State: taskStateOf(t),
		Inputs: artifactLists(t.Status.InputArtifacts), Outputs: artifactLists(t.Status.OutputArtifacts),
		ParentTaskID: t.Spec.Parent, PodName: t.Status.Pod, ChildTasks: children,
	}
	if t.Status.State == skiff.StateFailed {
		m.Error = failure(t.Status.Message)
	}
	if t.Status.Pod != "" {
		m.ExecutorDetail = &executorDetail{MainJob: t.Status.Pod}
		m.ChildTasks = append(m.ChildTasks, childTask{PodName: t.Status.Pod})
	}
	return m
}

// taskTitle is what the pipeline calls a task; a loop's pass has its number.
func taskTitle(t *skiff.Task) string {
	return cmp.Or(t.Spec.DisplayName, t.Spec.Key, t.Spec.Path)
}

func artifactLists(names map[string][]string) map[string]artifactList {
	if len(names) == 0 {
		return nil
	}
	lists := make(map[string]artifactList, len(names))
	for name, ids := range names {
		lists[name] = artifactList{ArtifactIDs: ids}
	}
	return lists
}
