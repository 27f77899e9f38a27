package pipeline

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
)

// A task's path in a run holds more than the pipeline says: the indexes of
// passes, and behind a DAG that was begun again which round it is.

var (
	roundMark = regexp.MustCompile(`~[0-9]+(/|$)`)
	passIndex = regexp.MustCompile(`^[0-9]+$`)
)

// roundless is a path without the marks of rounds.
func roundless(taskPath string) string {
	if !strings.Contains(taskPath, "~") {
		return taskPath
	}
	return roundMark.ReplaceAllString(taskPath, "$1")
}

// indexless is a path without the marks of rounds and the indexes of passes: the
// place of the task in its pipeline.
func indexless(taskPath string) string {
	parts := strings.Split(roundless(taskPath), "/")
	kept := parts[:0]
	for _, part := range parts {
		if !passIndex.MatchString(part) {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "/")
}

// calls says whether a name for a task of the pipeline means the task at path: a
// name without indexes means it in every pass.
func calls(name, taskPath string) bool {
	if plain := indexless(name); plain != name {
		return roundless(taskPath) == name
	}
	return indexless(taskPath) == name
}

// maxPlaces bounds how many places of a pipeline are listed: components that
// hold each other many times over make more of them than anybody could name.
const maxPlaces = 100_000

// places lists the tasks of a pipeline by their paths without indexes.
func places(spec *kfp.PipelineSpec) []string {
	var all []string
	var walk func(component *kfp.ComponentSpec, prefix string)
	walk = func(component *kfp.ComponentSpec, prefix string) {
		for _, key := range sortedKeys(component.Dag.Tasks) {
			if len(all) >= maxPlaces {
				return
			}
			all = append(all, prefix+key)
			if body := spec.Components[component.Dag.Tasks[key].ComponentRef.Name]; body != nil && body.Dag != nil {
				walk(body, prefix+key+"/")
			}
		}
	}
	walk(spec.Root, "")
	return all
}

// findTask resolves what people call a task of a pipeline: its path, with or
// without indexes of passes, or its key alone where only one task has it. What
// is not found, or means several, is a problem of the field.
func findTask(all []string, field, name string) (string, *problem.Error) {
	plain := indexless(name)
	var found []string
	for _, place := range all {
		switch {
		case place == plain:
			return name, nil
		case path.Base(place) == name:
			found = append(found, place)
		}
	}
	var problems problem.List
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		p := problems.Add(field, "the pipeline has no task %q", name)
		p.Hint = kfp.DidYouMean(name, likeNames(all, name), "tasks")
		return "", p
	default:
		p := problems.Add(field, "the pipeline has %d tasks called %q", len(found), name)
		p.Hint = "say which: " + strings.Join(found[:min(len(found), 8)], ", ")
		return "", p
	}
}

// likeNames are what a name that is not known may have been meant for: paths
// where it is one, else keys.
func likeNames(all []string, name string) []string {
	if strings.Contains(name, "/") {
		return all
	}
	keys := make([]string, len(all))
	for i, place := range all {
		keys[i] = path.Base(place)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
