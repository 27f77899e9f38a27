package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is what a Node is.
type Kind int

// The kinds.
const (
	File Kind = iota
	Folder
	Link
)

// Node is one name of an artifact.
type Node struct {
	// Path is below the artifact; empty for the artifact itself.
	Path string
	Kind Kind
	// Size is in bytes, of a file; Executable says whether anybody may run it.
	Size       int64
	Executable bool
	// Target is a link's text.
	Target string
	// SHA256 of a file, in hexadecimal, is for TreeDigest; Walk leaves it empty.
	SHA256 string
}

// Walk calls fn for an artifact and everything in it, a folder before what it
// holds, names in their order. Contents are read with Open. An error of fn ends
// it.
func (r *Repository) Walk(ctx context.Context, namespace, uri string, fn func(Node) error) error {
	at, err := r.Locate(namespace, uri)
	if err != nil {
		return err
	}
	f, st, err := r.openArtifact(at)
	if err != nil {
		return fmt.Errorf("walk artifact %s: %w", uri, err)
	}
	err = walkNode(ctx, f, st, "", 0, fn)
	if err = errors.Join(err, f.close()); err != nil {
		return fmt.Errorf("walk artifact %s: %w", uri, err)
	}
	return nil
}

// walkNode tells of what is open and goes down.
func walkNode(ctx context.Context, f fd, st unix.Stat_t, where string, depth int, fn func(Node) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if kindOf(st) == kindFile {
		return fn(Node{Path: where, Kind: File, Size: st.Size, Executable: st.Mode&0o111 != 0})
	}
	if depth > maxDepth {
		return fmt.Errorf("folders nest deeper than %d: %w", maxDepth, ErrUnsafe)
	}
	if err := fn(Node{Path: where, Kind: Folder}); err != nil {
		return err
	}
	list, err := names(f)
	if err != nil {
		return err
	}
	sort.Strings(list)
	for _, name := range list {
		if err := walkName(ctx, f, name, path.Join(where, name), depth, fn); err != nil {
			return err
		}
	}
	return nil
}

func walkName(ctx context.Context, dir fd, name, where string, depth int, fn func(Node) error) error {
	st, err := statAt(dir, name)
	if err != nil {
		return pathError(err, []string{where})
	}
	if isLink(st) {
		target, err := readLink(dir, name)
		if err != nil {
			return pathError(err, []string{where})
		}
		return fn(Node{Path: where, Kind: Link, Target: target})
	}
	found, err := openAt(dir, name, openName|unix.O_NOFOLLOW)
	if err != nil {
		return pathError(err, []string{where})
	}
	f, st, err := reopen(found, []string{where})
	if err != nil {
		return err
	}
	return errors.Join(walkNode(ctx, f, st, where, depth+1, fn), f.close())
}

// TreeDigest is what Digest would find for an artifact of these nodes, the
// files' hashes being known. The artifact itself is left out of a folder's, and
// the only node of a file's.
func TreeDigest(nodes []Node) Digest {
	if len(nodes) == 1 && nodes[0].Path == "" && nodes[0].Kind == File {
		return Digest{Digest: DigestPrefix + nodes[0].SHA256, Size: nodes[0].Size, Files: 1}
	}
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Node) int { return comparePaths(a.Path, b.Path) })
	var d Digest
	manifest := sha256.New()
	for _, n := range nodes {
		switch n.Kind {
		case Folder:
			fmt.Fprintf(manifest, "d %q\n", n.Path)
		case Link:
			fmt.Fprintf(manifest, "l %q %q\n", n.Target, n.Path)
		default:
			fmt.Fprintf(manifest, "f %s %d %q\n", n.SHA256, n.Size, n.Path)
			d.Size += n.Size
			d.Files++
		}
	}
	d.Digest = DigestPrefix + hex.EncodeToString(manifest.Sum(nil))
	return d
}

// comparePaths orders as a walk does: name by name.
func comparePaths(a, b string) int {
	for {
		first, restA, moreA := strings.Cut(a, "/")
		other, restB, moreB := strings.Cut(b, "/")
		if c := strings.Compare(first, other); c != 0 {
			return c
		}
		switch {
		case !moreA && !moreB:
			return 0
		case !moreA:
			return -1
		case !moreB:
			return 1
		}
		a, b = restA, restB
	}
}
