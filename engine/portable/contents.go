package portable

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store/artifact"
)

// contents lists the files of all artifacts that are here. The hash of an
// artifact that is a file was recorded when it was made, and with a folder's those
// of its files. Where they are lost they are computed now, since they stand in
// the manifest; what is written is held against them either way.
func (g *gathering) contents(ctx context.Context) error {
	seen := map[string]bool{}
	names := sortedKeys(g.artifacts)
	// What lies in another comes after it.
	slices.SortStableFunc(names, func(a, b string) int {
		return len(g.artifacts[a].Spec.URI) - len(g.artifacts[b].Spec.URI)
	})
	for _, name := range names {
		a := g.artifacts[name]
		if a.Status.Missing || seen[a.Spec.URI] || !g.p.here(a) {
			continue
		}
		seen[a.Spec.URI] = true
		if err := g.content(ctx, a); err != nil {
			return fmt.Errorf("export artifact %s (%s): %w", a.Spec.DisplayName, a.Name, err)
		}
	}
	return nil
}

func (g *gathering) content(ctx context.Context, a *skiff.Artifact) error {
	var nodes []artifact.Node
	err := g.p.cfg.Artifacts.Walk(ctx, a.Namespace, a.Spec.URI, func(n artifact.Node) error {
		if !utf8.ValidString(n.Path) || !utf8.ValidString(n.Target) {
			return refuse("artifact "+a.Name, "leave the contents out, or run the step again with other names", "the name %q in it is not UTF-8", n.Path)
		}
		if len(g.manifest.Entries)+len(nodes) > bundle.DefaultEntries {
			return refuse("artifact "+a.Name, "export less at once", "there are more than %d files", bundle.DefaultEntries)
		}
		nodes = append(nodes, n)
		return nil
	})
	if err != nil {
		return err
	}
	listed := bundle.Artifact{Name: a.Name, Digest: a.Status.Digest, Folder: nodes[0].Kind == artifact.Folder}
	if listed.Folder {
		nodes = nodes[1:]
		if err := g.hashFiles(ctx, a, nodes); err != nil {
			return err
		}
		if found := artifact.TreeDigest(nodes).Digest; found != a.Status.Digest {
			return fmt.Errorf("its contents are no longer those that were recorded (%s, now %s): %w", a.Status.Digest, found, bundle.ErrChanged)
		}
	} else {
		nodes[0].SHA256 = strings.TrimPrefix(a.Status.Digest, artifact.DigestPrefix)
	}
	for _, n := range nodes {
		switch n.Kind {
		case artifact.Folder:
			listed.Folders = append(listed.Folders, n.Path)
		case artifact.Link:
			listed.Links = append(listed.Links, bundle.Link{Path: n.Path, Target: n.Target})
		default:
			g.add(bundle.Entry{Path: nodeEntry(a, n), Size: n.Size, SHA256: n.SHA256, Executable: n.Executable}, func() (io.ReadCloser, error) {
				f, err := g.p.cfg.Artifacts.Open(a.Namespace, a.Spec.URI, n.Path)
				if err != nil {
					return nil, err
				}
				return artifact.Ahead(f), nil
			})
		}
	}
	g.manifest.Artifacts = append(g.manifest.Artifacts, listed)
	return nil
}

// hashFiles fills in the hashes of files, on all processors.
func (g *gathering) hashFiles(ctx context.Context, a *skiff.Artifact, nodes []artifact.Node) error {
	known := g.p.cfg.Artifacts.FileHashes(a.Status.Digest)
	group, each := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range nodes {
		if nodes[i].Kind != artifact.File {
			continue
		}
		if nodes[i].SHA256 = known[nodes[i].Path]; nodes[i].SHA256 != "" {
			continue
		}
		if each.Err() != nil {
			break
		}
		group.Go(func() (err error) {
			f, err := g.p.cfg.Artifacts.Open(a.Namespace, a.Spec.URI, nodes[i].Path)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			h := sha256.New()
			if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, min(1<<20, nodes[i].Size+1))); err != nil {
				return err
			}
			nodes[i].SHA256 = hex.EncodeToString(h.Sum(nil))
			return context.Cause(each)
		})
	}
	return errors.Join(group.Wait(), context.Cause(ctx))
}
