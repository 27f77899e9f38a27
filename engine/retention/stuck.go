package retention

import (
	"context"
	"errors"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact/s3"
)

// removeContents removes an artifact's contents. An object store that does not
// answer is asked once in a pass, so that it holds up nothing else.
func (p *pass) removeContents(ctx context.Context, a *skiff.Artifact) error {
	endpoint := ""
	if a.Status.Uploaded != nil {
		endpoint = a.Status.Uploaded.Endpoint
	}
	if err := p.away[endpoint]; err != nil {
		// What is here goes all the same.
		return errors.Join(err, p.c.cfg.Contents.Purge(ctx, a.Namespace, a.Spec.URI, ""))
	}
	err := p.c.cfg.Contents.Purge(ctx, a.Namespace, a.Spec.URI, endpoint)
	if endpoint != "" && errors.Is(err, s3.ErrAway) {
		if p.away == nil {
			p.away = map[string]error{}
		}
		p.away[endpoint] = err
	}
	return err
}

// stuck notes with an artifact why its contents are not gone. The same reason is
// not noted again: it may be met every few minutes for days.
func (p *pass) stuck(ctx context.Context, a *skiff.Artifact, why error) error {
	reason := skiff.StuckRemoval
	switch {
	case errors.Is(why, s3.ErrAway):
		reason = skiff.StuckStoreAway
	case errors.Is(why, s3.ErrDenied):
		reason = skiff.StuckStoreDenied
	case errors.Is(why, s3.ErrSettings):
		reason = skiff.StuckStoreSettings
	}
	return p.amend(ctx, []string{a.Name}, func(a *skiff.Artifact) error {
		switch {
		case a.Status.Purged == nil && a.DeletionTimestamp != nil: // it goes with its run, and had no mark
			a.Status.Purged = &skiff.Purge{At: *a.DeletionTimestamp, Reason: reasonOf(a), Message: a.Gone(), Removing: true}
		case a.Status.Purged == nil, a.Status.Purged.Stuck != nil && a.Status.Purged.Stuck.Reason == reason:
			return store.ErrUnchanged
		}
		p.c.log.Warn("contents of an artifact are not gone; it is tried again", "artifact", a.Namespace+"/"+a.Name, "reason", reason, "error", why)
		a.Status.Purged.Stuck = &skiff.Stuck{Reason: reason, Message: why.Error(), Since: p.c.now()}
		return nil
	})
}

// countStuck puts into a report what was given up and is not gone.
func (p *pass) countStuck(ctx context.Context, report *skiff.PurgeReport) error {
	return each(ctx, p.c.store, store.ListOptions{Kind: artifactsKind, Namespace: p.namespace, Index: byPurging}, func(a *skiff.Artifact) (bool, error) {
		if a.Status.Purged != nil && a.Status.Purged.Stuck != nil {
			report.Stuck++
			report.StuckMessage = a.Status.Purged.Stuck.Message
		}
		return true, nil
	})
}
