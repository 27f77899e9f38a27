package pipeline

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const runName = "01a20b1f-df71-760f-a7bc-d10094977f51"

// TestNames: the names are what containers, folders and objects of a run that is
// under way are found by, so they must not change from one release to the next.
func TestNames(t *testing.T) {
	for _, tt := range []struct{ path, task, pod, label string }{
		{"train", runName + "-train-116f54c41d04", "train-d10094977f51-116f54c41d04-2-r1", "train"},
		{"for-loop-1/0/train", runName + "-train-fdeef48550d6", "train-d10094977f51-fdeef48550d6-2-r1", "for-loop-1.0.train"},
		{"part~2/Train Model", runName + "-train-model-8ea7900d40de", "train-model-d10094977f51-8ea7900d40de-2-r1", "part-2.Train-Model-8ea7900d40de"},
		{"é", runName + "-x-4a99557e4033", "x-d10094977f51-4a99557e4033-2-r1", "4a99557e4033"},
		{"a.b", runName + "-a-b-2e7336dc8eba", "a-b-d10094977f51-2e7336dc8eba-2-r1", "a.b-2e7336dc8eba"},
		{"a/b", runName + "-b-c14cddc033f6", "b-d10094977f51-c14cddc033f6-2-r1", "a.b"},
	} {
		if got := taskName(runName, tt.path); got != tt.task {
			t.Errorf("task of %q: %s, want %s", tt.path, got, tt.task)
		}
		if got := podName(runName, tt.path, 2, 1); got != tt.pod {
			t.Errorf("pod of %q: %s, want %s", tt.path, got, tt.pod)
		}
		if got := labelValue(tt.path); got != tt.label {
			t.Errorf("label of %q: %s, want %s", tt.path, got, tt.label)
		}
	}
	if got := runResourceName("My Pipeline", runName); got != "my-pipeline-77f51" {
		t.Errorf("resource name %s", got)
	}
}

// The published rules for the names of objects and for the values of labels.
var (
	objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)
	labelRule  = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
)

func TestNamesAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(rapid.StringMatching(`[a-z][-a-z0-9]{0,80}`), rapid.StringN(1, 60, 200))
		path := strings.Join(rapid.SliceOfN(key, 1, 6).Draw(t, "keys"), "/")
		pod := podName(runName, path, rapid.IntRange(1, 100).Draw(t, "attempt"), rapid.IntRange(0, maxRestarts).Draw(t, "restart"))
		if len(pod) > 63 || !objectName.MatchString(pod) {
			t.Errorf("pod %q", pod)
		}
		if task := taskName(runName, path); len(task) > 253 || !objectName.MatchString(task) {
			t.Errorf("task %q", task)
		}
		if label := labelValue(path); len(label) > 63 || !labelRule.MatchString(label) {
			t.Errorf("label %q", label)
		}
		if folder := folderName(path); len(folder) > 255 || !labelRule.MatchString(folder) {
			t.Errorf("folder %q", folder)
		}
	})
}

// TestNamesAreUnique: no two tasks of a large run share a name, nor two attempts.
func TestNamesAreUnique(t *testing.T) {
	seen := map[string]string{}
	add := func(name, what string) {
		t.Helper()
		if other := seen[name]; other != "" {
			t.Fatalf("%s is called %s, as %s", what, name, other)
		}
		seen[name] = what
	}
	for i := range 120 {
		for j := range 120 {
			path := fmt.Sprintf("for-loop-1/%d/for-loop-2/%d/train", i, j)
			add(taskName(runName, path), path)
			add("folder "+folderName(path), path)
			for attempt := 1; attempt <= 2; attempt++ {
				for restart := range 2 {
					add(podName(runName, path, attempt, restart), fmt.Sprint(path, attempt, restart))
				}
			}
		}
	}
	long := strings.Repeat("long-", 50)
	for _, path := range []string{"a/b", "a.b", "a~b", "a b", long + "x/y", long + "z/y", "x/" + long, "y/" + long} {
		add("label "+labelValue(path), path)
		add("folder "+folderName(path), path)
	}
}

func TestSanitized(t *testing.T) {
	for _, tt := range []struct {
		text  string
		limit int
		want  string
	}{
		{"Train Model", 30, "train-model"}, {"-x-", 30, "x"}, {"ä", 30, "x"}, {"", 30, "x"}, {"abc-def", 4, "abc"}, {"a.b_c", 30, "a-b-c"},
	} {
		if got := sanitized(tt.text, tt.limit); got != tt.want {
			t.Errorf("sanitized(%q, %d) = %q, want %q", tt.text, tt.limit, got, tt.want)
		}
	}
}
