package pipeline

import (
	"fmt"
	"path"
	"time"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
)

// annotationStaleness is KFP's published annotation of a pod by which a task says
// how old an earlier result may be, as an ISO 8601 duration (P30D; P0D for none).
// It is what execution_options.caching_strategy.max_cache_staleness was compiled
// to; with the present SDK it is set by kubernetes.add_pod_annotation.
const annotationStaleness = "pipelines.kubeflow.org/max_cache_staleness"

// What a run may say of a task's cache, beside an age.
const (
	cacheOff = "off"
	cacheOn  = "on"
)

// cacheRule is what holds for one look-up.
type cacheRule struct {
	// off says why there is none; empty where there is one.
	off string
	// limited says that results older than maxAge do not count.
	limited bool
	maxAge  time.Duration
}

func (r *cacheRule) limit(age time.Duration) {
	if !r.limited || age < r.maxAge {
		r.limited, r.maxAge = true, age
	}
}

// cacheRule finds what holds for a step. What the run says of the task wins over
// what the run says of all and over what the pipeline says of the task; the
// strictest of the ages that are left counts, the daemon's among them.
func (x *execution) cacheRule(n *node) cacheRule {
	var rule cacheRule
	if x.c.cacheExpiry > 0 {
		rule.limit(x.c.cacheExpiry)
	}
	if word, given := x.cacheWord(n.path); given {
		switch word {
		case cacheOff:
			rule.off = "caching is off for this task in this run"
		case cacheOn:
		default:
			rule.limitText(word)
		}
		return rule
	}
	switch {
	case x.run.Spec.DisableCache:
		rule.off = "caching is off for this run"
	case !n.spec.CachingOptions.EnableCache:
		rule.off = "caching is off for this task"
	}
	rule.limitText(x.run.Spec.CacheMaxAge)
	if platform := x.plat.Executor(n.component.ExecutorLabel); platform != nil && platform.PodMetadata != nil {
		rule.limitText(platform.PodMetadata.Annotations[annotationStaleness])
	}
	return rule
}

// limitText takes an age in that was checked at the door; empty is none.
func (r *cacheRule) limitText(text string) {
	if text == "" {
		return
	}
	if age, err := skiff.ParseAge(text); err == nil {
		r.limit(age)
	}
}

// cacheWord is what the run says of a task, or of the nearest task around it.
func (x *execution) cacheWord(taskPath string) (string, bool) {
	if len(x.run.Spec.CacheTasks) == 0 {
		return "", false
	}
	for at := taskPath; at != "." && at != ""; at = path.Dir(at) {
		for _, name := range sortedKeys(x.run.Spec.CacheTasks) {
			if calls(name, at) {
				return x.run.Spec.CacheTasks[name], true
			}
		}
	}
	return "", false
}

// cacheSettings checks what a submission says of caching, and resolves the tasks
// that it names.
func (c *Controller) cacheSettings(pkg *kfp.Package, sub *Submission) problem.List {
	var problems problem.List
	if sub.CacheMaxAge != "" {
		if _, err := skiff.ParseAge(sub.CacheMaxAge); err != nil {
			problems.Add("cacheMaxAge", "%w", err).Hint = hintAge
		}
	}
	if len(sub.CacheTasks) > 0 {
		all := places(pkg.Spec)
		resolved := make(map[string]string, len(sub.CacheTasks))
		for _, name := range sortedKeys(sub.CacheTasks) {
			word := sub.CacheTasks[name]
			place, wrong := findTask(all, "cacheTasks", name)
			if wrong != nil {
				problems = append(problems, wrong)
				continue
			}
			if word != cacheOff && word != cacheOn {
				if _, err := skiff.ParseAge(word); err != nil {
					problems.Add("cacheTasks."+name, "%w", err).Hint = "say off, on, or how old a result may be, as in 720h or 30d"
				}
			}
			resolved[place] = word
		}
		sub.CacheTasks = resolved
	}
	for _, label := range sortedKeys(pkg.Spec.DeploymentSpec.Executors) {
		platform := pkg.Platform.Executor(label)
		if platform == nil || platform.PodMetadata == nil || platform.PodMetadata.Annotations[annotationStaleness] == "" {
			continue
		}
		if _, err := skiff.ParseAge(platform.PodMetadata.Annotations[annotationStaleness]); err != nil {
			problems.Add("platforms.kubernetes.deploymentSpec.executors."+label+".podMetadata.annotations."+annotationStaleness, "%w", err).Hint = hintAge
		}
	}
	return problems
}

const hintAge = "say how old a result may be, as in 720h, 30d or P30D; 0s for not at all"

const day = 24 * time.Hour

// roughly writes a duration for people, in its largest unit.
func roughly(d time.Duration) string {
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d d", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	default:
		return fmt.Sprintf("%d s", d/time.Second)
	}
}
