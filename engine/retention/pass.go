package retention

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// pass is one look at a namespace.
type pass struct {
	c         *Controller
	namespace string
	retention skiff.Retention
	// needed are the artifacts, by name, that active and pinned runs made or use.
	needed map[string]bool
	// Artifacts that were used before these moments are over the bounds.
	tooOld, beyondRuns time.Time
	// excess is by how many bytes the namespace is over its bound.
	excess int64
	// away are the object stores that did not answer in this pass, by endpoint.
	away map[string]error
}

// batch is how many artifacts one transaction marks.
const batch = 100

func (c *Controller) newPass(ctx context.Context, namespace string, retention skiff.Retention) (*pass, error) {
	p := &pass{c: c, namespace: namespace, retention: retention}
	var err error
	if p.needed, err = c.needed(ctx, namespace); err != nil {
		return nil, err
	}
	if retention.MaxAge > 0 {
		p.tooOld = c.now().Add(-retention.MaxAge)
	}
	if retention.MaxRuns > 0 {
		if p.beyondRuns, err = p.oldestKeptRun(ctx); err != nil {
			return nil, err
		}
	}
	if retention.MaxBytes > 0 {
		total, err := p.total(ctx)
		if err != nil {
			return nil, err
		}
		p.excess = total - retention.MaxBytes
	}
	return p, nil
}

// needed collects what must stay for the sake of runs: it follows what is active
// and what is pinned, never history.
func (c *Controller) needed(ctx context.Context, namespace string) (map[string]bool, error) {
	needed := map[string]bool{}
	add := func(byOutput map[string][]string) {
		for _, names := range byOutput {
			for _, name := range names {
				needed[name] = true
			}
		}
	}
	for _, index := range []string{byActive, byPin} {
		err := each(ctx, c.store, store.ListOptions{Kind: runsKind, Namespace: namespace, Index: index}, func(run *skiff.Run) (bool, error) {
			add(run.Status.OutputArtifacts)
			of := store.ListOptions{Kind: tasksKind, Namespace: namespace, Index: byRun, Prefix: run.Name, Exact: true}
			err := each(ctx, c.store, of, func(task *skiff.Task) (bool, error) {
				add(task.Status.InputArtifacts)
				add(task.Status.OutputArtifacts)
				return true, nil
			})
			if err != nil {
				return false, err
			}
			of.Kind = artifactsKind
			return true, each(ctx, c.store, of, func(a *skiff.Artifact) (bool, error) {
				needed[a.Name] = true
				return true, nil
			})
		})
		if err != nil {
			return nil, fmt.Errorf("collect what runs need: %w", err)
		}
	}
	return needed, nil
}

// oldestKeptRun is when the oldest of the newest runs that keep theirs was made;
// zero where there are no more.
func (p *pass) oldestKeptRun(ctx context.Context) (time.Time, error) {
	var oldest time.Time
	n := 0
	err := each(ctx, p.c.store, store.ListOptions{Kind: runsKind, Namespace: p.namespace, Index: byCreation}, func(run *skiff.Run) (bool, error) {
		if n++; n > p.retention.MaxRuns {
			return false, nil
		}
		oldest = run.CreationTimestamp
		return true, nil
	})
	if n <= p.retention.MaxRuns {
		oldest = time.Time{}
	}
	return oldest, err
}

// total is what the namespace's artifacts take.
func (p *pass) total(ctx context.Context) (int64, error) {
	var total int64
	err := each(ctx, p.c.store, store.ListOptions{Kind: artifactsKind, Namespace: p.namespace, Index: byUse}, func(a *skiff.Artifact) (bool, error) {
		total += a.Status.Size
		return true, nil
	})
	return total, err
}

// over says by which bound an artifact is to go; ok is false where it stays, and
// then every one that was used later does.
func (p *pass) over(a *skiff.Artifact) (reason, message string, ok bool) {
	used := a.LastUsed()
	switch {
	case used.Before(p.tooOld):
		return skiff.RetainMaxAge, "not used since " + used.UTC().Format(time.DateTime) + ", kept for " + p.text(skiff.Retention{MaxAge: p.retention.MaxAge}), true
	case used.Before(p.beyondRuns):
		return skiff.RetainMaxRuns, fmt.Sprintf("not used since the newest %d runs began", p.retention.MaxRuns), true
	case p.excess > 0:
		return skiff.RetainMaxBytes, "all artifacts took more than " + p.text(skiff.Retention{MaxBytes: p.retention.MaxBytes}) + ", and this was not used for longest", true
	}
	return "", "", false
}

// text is the value of the one bound that is set.
func (p *pass) text(one skiff.Retention) string {
	_, value, _ := strings.Cut(one.String(), "=")
	return value
}

// run goes through the artifacts in the order of their last use.
func (p *pass) run(ctx context.Context, report *skiff.PurgeReport) error {
	var going []*skiff.Artifact
	flush := func() error {
		gone, err := p.purge(ctx, going)
		for _, a := range gone {
			report.Add(a, a.Status.Purged.Reason, a.Status.Purged.Message)
		}
		going = nil
		return err
	}
	oldest := store.ListOptions{Kind: artifactsKind, Namespace: p.namespace, Index: byUse, Limit: batch}
	err := each(ctx, p.c.store, oldest, func(a *skiff.Artifact) (bool, error) {
		reason, message, over := p.over(a)
		switch {
		case !over:
			return false, nil
		case skiff.Pinned(a):
			report.Pinned++
			return true, nil
		case p.needed[a.Name] || p.c.cfg.Using(a):
			report.InUse++
			return true, nil
		}
		p.excess -= a.Status.Size
		if report.DryRun {
			report.Add(a, reason, message)
			return true, nil
		}
		a.Status.Purged = &skiff.Purge{At: p.c.now(), Reason: reason, Message: message}
		if going = append(going, a); len(going) < batch {
			return true, nil
		}
		return true, flush()
	})
	if err == nil && len(going) > 0 {
		err = flush()
	}
	return err
}
