package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"sort"

	"golang.org/x/sys/unix"
)

// DigestPrefix begins every content hash.
const DigestPrefix = "sha256:"

// Digest is an artifact's content hash.
type Digest struct {
	// Digest is "sha256:" and 64 hexadecimal digits.
	Digest string
	// Size is the bytes of all regular files, Files their number.
	Size, Files int64
}

// Digest is the content hash of an artifact: of a file, the SHA-256 of its
// bytes; of a directory, that of its manifest, one line an entry in the order
// of paths:
//
//	d "PATH"
//	f SHA256 SIZE "PATH"
//	l "TARGET" "PATH"
//
// with Go-quoted strings.
func (r *Repository) Digest(ctx context.Context, namespace, uri string) (Digest, error) {
	at, err := r.Locate(namespace, uri)
	if err != nil {
		return Digest{}, err
	}
	f, st, err := r.openArtifact(at)
	if err != nil {
		return Digest{}, fmt.Errorf("hash artifact %s: %w", uri, err)
	}
	d := &digesting{ctx: ctx, buffer: make([]byte, 1<<20)}
	var sum []byte
	if kindOf(st) == kindFile {
		sum, err = d.file(f)
	} else {
		manifest, kept := sha256.New(), &listing{}
		if err = d.dir(f, "", 0, io.MultiWriter(manifest, kept)); err == nil {
			sum = manifest.Sum(nil)
			r.keepListing(hex.EncodeToString(sum), kept)
		}
		err = errors.Join(err, f.close())
	}
	if err != nil {
		return Digest{}, fmt.Errorf("hash artifact %s: %w", uri, err)
	}
	return Digest{Digest: DigestPrefix + hex.EncodeToString(sum), Size: d.size, Files: d.files}, nil
}

type digesting struct {
	ctx         context.Context // lives as long as the call.
	buffer      []byte
	size, files int64
}

// file hashes and closes an open file.
func (d *digesting) file(f fd) (sum []byte, err error) {
	source := f.file("")
	defer func() { err = errors.Join(err, source.Close()) }()
	h := sha256.New()
	n, err := io.CopyBuffer(contextWriter{d.ctx, h}, onlyReader{source}, d.buffer)
	if err != nil {
		return nil, err
	}
	d.size += n
	d.files++
	return h.Sum(nil), nil
}

// onlyReader keeps io.CopyBuffer to the buffer that it was given.
type onlyReader struct{ io.Reader }

// dir writes a directory's lines to the manifest.
func (d *digesting) dir(f fd, prefix string, depth int, manifest io.Writer) error {
	if depth > maxDepth {
		return fmt.Errorf("folders nest deeper than %d: %w", maxDepth, ErrUnsafe)
	}
	list, err := names(f)
	if err != nil {
		return err
	}
	sort.Strings(list)
	for _, name := range list {
		if d.ctx.Err() != nil {
			return context.Cause(d.ctx)
		}
		if err := d.entry(f, name, path.Join(prefix, name), depth, manifest); err != nil {
			return err
		}
	}
	return nil
}

func (d *digesting) entry(dir fd, name, where string, depth int, manifest io.Writer) error {
	st, err := statAt(dir, name)
	if err != nil {
		return pathError(err, []string{where})
	}
	if isLink(st) {
		target, err := readLink(dir, name)
		if err != nil {
			return pathError(err, []string{where})
		}
		_, err = fmt.Fprintf(manifest, "l %q %q\n", target, where)
		return err
	}
	found, err := openAt(dir, name, openName|unix.O_NOFOLLOW)
	if err != nil {
		return pathError(err, []string{where})
	}
	f, st, err := reopen(found, []string{where})
	if err != nil {
		return err
	}
	if kindOf(st) == kindDir {
		_, err = fmt.Fprintf(manifest, "d %q\n", where)
		if err == nil {
			err = d.dir(f, where, depth+1, manifest)
		}
		return errors.Join(err, f.close())
	}
	before := d.size
	sum, err := d.file(f)
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	_, err = fmt.Fprintf(manifest, "f %x %d %q\n", sum, d.size-before, where)
	return err
}

func readLink(dir fd, name string) (string, error) {
	buffer := make([]byte, unix.PathMax)
	var n int
	err := retry(func() (err error) {
		n, err = unix.Readlinkat(int(dir), name, buffer)
		return err
	})
	if err != nil {
		return "", err
	}
	return string(buffer[:n]), nil
}
