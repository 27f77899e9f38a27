package retention

import (
	"context"
	"errors"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// runFolder is the URI of the folder that a run's steps wrote to, by that of
// something they made; false where that was put elsewhere.
func runFolder(a *skiff.Artifact) (string, bool) {
	if a.Spec.Run == "" || a.Spec.Imported {
		return "", false
	}
	before, _, found := strings.Cut(a.Spec.URI, "/"+a.Spec.Run+"/")
	return before + "/" + a.Spec.Run, found
}

// removeFolders removes what is left on this machine of runs that were deleted, and
// of whose artifacts none is kept: what their failed attempts, and steps beside
// their outputs, wrote. Only a run's own steps can write there.
func (p *pass) removeFolders(ctx context.Context, removed []*skiff.Artifact) error {
	looked := map[string]bool{}
	for _, a := range removed {
		uri, is := runFolder(a)
		if !is || looked[uri] {
			continue
		}
		looked[uri] = true
		_, err := p.c.store.Get(ctx, store.Key{Kind: runsKind, Namespace: a.Namespace, Name: a.Spec.Run})
		if err == nil {
			continue
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		folder := &skiff.Artifact{ObjectMeta: core.ObjectMeta{Namespace: a.Namespace}, Spec: skiff.ArtifactSpec{URI: uri, Run: a.Spec.Run}}
		shared, _, err := p.shared(ctx, folder)
		if err != nil {
			return err
		}
		if shared || p.c.cfg.Using(folder) {
			continue
		}
		if err := p.c.cfg.Contents.Purge(ctx, a.Namespace, uri, ""); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p.c.log.Warn("the folder of a deleted run is not gone", "uri", uri, "error", err)
		}
	}
	return nil
}
