package pipeline

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
)

// TestCacheRule: what the run says of a task wins, else the strictest counts.
func TestCacheRule(t *testing.T) {
	const offRun, offTask, offHere = "caching is off for this run", "caching is off for this task", "caching is off for this task in this run"
	limit := func(age time.Duration) cacheRule { return cacheRule{limited: true, maxAge: age} }
	for _, test := range []struct {
		name       string
		expiry     time.Duration
		spec       skiff.RunSpec
		enabled    bool
		annotation string
		want       cacheRule
	}{
		{name: "nothing said", enabled: true},
		{name: "off in the pipeline", want: cacheRule{off: offTask}},
		{name: "off in the run", enabled: true, spec: skiff.RunSpec{DisableCache: true}, want: cacheRule{off: offRun}},
		{name: "the daemon's", enabled: true, expiry: day, want: limit(day)},
		{name: "the run's is stricter", enabled: true, expiry: day, spec: skiff.RunSpec{CacheMaxAge: "1h"}, want: limit(time.Hour)},
		{name: "the daemon's is stricter", enabled: true, expiry: day, spec: skiff.RunSpec{CacheMaxAge: "48h"}, want: limit(day)},
		{name: "the task's annotation", enabled: true, annotation: "P2D", spec: skiff.RunSpec{CacheMaxAge: "30d"}, want: limit(2 * day)},
		{name: "the task takes none", enabled: true, annotation: "P0D", want: limit(0)},
		{name: "off for the task", enabled: true, spec: skiff.RunSpec{CacheTasks: map[string]string{"each/train": "off"}}, want: cacheRule{off: offHere}},
		{name: "off for the pass", enabled: true, spec: skiff.RunSpec{CacheTasks: map[string]string{"each/0/train": "off"}}, want: cacheRule{off: offHere}},
		{name: "off for another pass", enabled: true, spec: skiff.RunSpec{CacheTasks: map[string]string{"each/1/train": "off"}}},
		{name: "off around the task", enabled: true, spec: skiff.RunSpec{CacheTasks: map[string]string{"each": "off"}}, want: cacheRule{off: offHere}},
		{name: "on inside of what is off", spec: skiff.RunSpec{DisableCache: true, CacheTasks: map[string]string{"each": "off", "each/train": "on"}}},
		{name: "an age for the task", annotation: "P0D", spec: skiff.RunSpec{CacheMaxAge: "1s", CacheTasks: map[string]string{"each/train": "2h"}}, want: limit(2 * time.Hour)},
		{name: "no age beyond the daemon's", expiry: time.Hour, spec: skiff.RunSpec{CacheTasks: map[string]string{"each/train": "2h"}}, want: limit(time.Hour)},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := &kfp.PipelineTaskSpec{}
			spec.CachingOptions.EnableCache = test.enabled
			plat := &kfp.KubernetesPlatform{}
			plat.DeploymentSpec.Executors = map[string]*kfp.KubernetesExecutorConfig{"exec": {PodMetadata: &kfp.PodMetadata{Annotations: map[string]string{annotationStaleness: test.annotation}}}}
			x := &execution{c: &Controller{cacheExpiry: test.expiry}, run: &skiff.Run{Spec: test.spec}, plat: plat}
			n := &node{path: "each/0/train", spec: spec, component: &kfp.ComponentSpec{ExecutorLabel: "exec"}}
			if diff := cmp.Diff(test.want, x.cacheRule(n), cmp.AllowUnexported(cacheRule{})); diff != "" {
				t.Errorf("rule (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCacheExpiry: an older result does not count, and the reason says since when;
// the new one does.
func TestCacheExpiry(t *testing.T) {
	var later atomic.Int64
	r := newRig(t, func(cfg *Config) {
		cfg.CacheExpiry = 10 * day
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	first := r.finish("cached", with("text", "weights"))
	later.Store(int64(9 * day))
	hit := r.finish("cached", with("text", "weights"))
	if !r.tasks(hit.Name)["make"].Status.Cached {
		t.Errorf("after nine days: %v", r.cacheReasons(hit))
	}
	strict := r.finish("cached", func(sub *Submission) {
		with("text", "weights")(sub)
		sub.CacheMaxAge = "30d"
		sub.CacheTasks = map[string]string{"read": "5d"}
	})
	want := map[string]string{"make": "hit: the same step of run " + first.Name, "read": "miss: the result of run " + first.Name + " expired 4 d ago"}
	if diff := cmp.Diff(want, r.cacheReasons(strict)); diff != "" {
		t.Errorf("with a stricter task (-want +got):\n%s", diff)
	}
	later.Store(int64(13*day + time.Hour))
	miss := r.finish("cached", with("text", "weights"))
	if reason := r.cacheReasons(miss)["make"]; reason != "miss: the result of run "+first.Name+" expired 3 d ago" {
		t.Errorf("after thirteen days: %s", reason)
	}
	again := r.finish("cached", with("text", "weights"))
	if reason := r.cacheReasons(again)["make"]; reason != "hit: the same step of run "+miss.Name {
		t.Errorf("behind it: %s", reason)
	}
}

// TestNearMiss: a miss says in what the step differs from the one of the run
// before.
func TestNearMiss(t *testing.T) {
	for _, test := range []struct{ name, from, to, want string }{
		{"command", `command: [do], args: ["write `, `command: [does], args: ["write `, "miss: command differs from run RUN's"},
		{"image", `exec-make: {container: {image: step`, `exec-make: {container: {image: pace`, "miss: image differs from run RUN's (pace, there step)"},
		{"caching", "", "", "hit: the same step of run RUN"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			first := r.finish("cached", with("text", "weights"))
			r.finish("simple", with("do", "")) // of another pipeline
			second := r.finish("cached", func(sub *Submission) {
				edited(t, "cached", test.from, test.to)(sub)
				with("text", "weights")(sub)
			})
			if got, want := r.cacheReasons(second)["make"], strings.ReplaceAll(test.want, "RUN", first.Name); got != want {
				t.Errorf("%s\nwant %s", got, want)
			}
		})
	}
	t.Run("looked up for the first time", func(t *testing.T) {
		r := newRig(t, nil)
		first := r.finish("cached", func(sub *Submission) { with("text", "weights")(sub); sub.DisableCache = true })
		second := r.finish("cached", with("text", "weights"))
		if got := r.cacheReasons(second)["make"]; !strings.Contains(got, "in run "+first.Name+" the step was not looked up") {
			t.Error(got)
		}
	})
}

// TestCacheRefused: what cannot be meant is said at the door.
func TestCacheRefused(t *testing.T) {
	r := newRig(t, nil)
	for _, test := range []struct {
		sub  Submission
		want string
	}{
		{Submission{CacheMaxAge: "long"}, `cacheMaxAge: "long" is no age (say how old`},
		{Submission{CacheTasks: map[string]string{"mak": "off"}}, `cacheTasks: the pipeline has no task "mak" (did you mean "make"?)`},
		{Submission{CacheTasks: map[string]string{"make": "never"}}, `cacheTasks.make: "never" is no age (say off, on, or`},
	} {
		test.sub.Namespace, test.sub.Filename, test.sub.Package = space, "cached.yaml", source(t, "cached")
		with("text", "x")(&test.sub)
		if err := r.c.Check(t.Context(), test.sub); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v\nwant %s", err, test.want)
		}
	}
}
