package bundle

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Compression says how a bundle is packed.
type Compression int

// The compressions.
const (
	// Stored is gzip around contents as they are, objects alone squeezed: models
	// hardly shrink, and no deflate is as fast as a disk.
	Stored Compression = iota
	// Squeezed deflates what will shrink, on all processors.
	Squeezed
	// Uncompressed is a bare tar archive.
	Uncompressed
)

// Writer writes a bundle, entry by entry, as its manifest lists them.
type Writer struct {
	manifest *Manifest
	archive  *tar.Writer
	zip      *blocks // nil where the archive is not compressed
	how      Compression
	next     int
	buffers  [][]byte
}

// NewWriter writes the manifest, which must be complete, and is then ready for
// the entries. Close must be called, whatever failed.
func NewWriter(w io.Writer, m *Manifest, how Compression) (*Writer, error) {
	if err := m.check(Limits{}.WithDefaults()); err != nil {
		return nil, fmt.Errorf("write the bundle: %w", err)
	}
	data, err := m.encode()
	if err != nil {
		return nil, err
	}
	if len(data) > DefaultManifestBytes {
		return nil, refuse("export less at once", "its manifest would have %d bytes; at most %d are read", len(data), DefaultManifestBytes)
	}
	out := &Writer{manifest: m, how: how, buffers: newBuffers()}
	if how != Uncompressed {
		out.zip = newBlocks(w)
		out.zip.squeeze = true
		w = out.zip
	}
	out.archive = tar.NewWriter(w)
	if err := out.header(ManifestName, int64(len(data)), false); err == nil {
		_, err = out.archive.Write(data)
		if err == nil {
			return out, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("write the bundle's manifest: %w", err), out.end())
}

func (w *Writer) header(name string, size int64, executable bool) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: w.manifest.Created.UTC().Truncate(time.Second), Format: tar.FormatPAX}
	if executable {
		header.Mode = 0o755
	}
	return w.archive.WriteHeader(header)
}

// Add writes the next entry. Contents that are not what the manifest says are
// ErrChanged; then, and after any other error, the bundle is not whole and must
// not be kept.
func (w *Writer) Add(contents io.Reader) error {
	if w.next == len(w.manifest.Entries) {
		return fmt.Errorf("write the bundle: all %d entries are written", w.next)
	}
	entry := &w.manifest.Entries[w.next]
	w.next++
	if w.zip != nil {
		w.zip.squeeze = w.how == Squeezed || strings.HasPrefix(entry.Path, ObjectsDir+"/")
	}
	if err := w.header(entry.Path, entry.Size, entry.Executable); err != nil {
		return fmt.Errorf("write %s: %w", entry.Path, err)
	}
	if w.zip != nil && !w.zip.squeeze && entry.Size >= blockSize {
		// What follows is stored block by block, without being gathered first.
		if err := w.zip.flush(); err != nil {
			return fmt.Errorf("write %s: %w", entry.Path, err)
		}
	}
	hash := sha256.New()
	n, err := w.copy(io.TeeReader(contents, hash), entry.Size)
	switch {
	case errors.Is(err, tar.ErrWriteTooLong):
		return fmt.Errorf("write %s: it has more than %d bytes: %w", entry.Path, entry.Size, ErrChanged)
	case err != nil:
		return fmt.Errorf("write %s: %w", entry.Path, err)
	case n != entry.Size:
		return fmt.Errorf("write %s: it has %d bytes, not %d: %w", entry.Path, n, entry.Size, ErrChanged)
	case hex.EncodeToString(hash.Sum(nil)) != entry.SHA256:
		return fmt.Errorf("write %s: its contents are others: %w", entry.Path, ErrChanged)
	}
	return nil
}

// copy reads ahead where there is something to read ahead.
func (w *Writer) copy(contents io.Reader, size int64) (int64, error) {
	if size > bufferSize {
		return copyAhead(w.archive, contents, w.buffers)
	}
	return io.CopyBuffer(onlyWriter{w.archive}, onlyReader{contents}, w.buffers[0])
}

// onlyWriter and onlyReader keep io.CopyBuffer to the buffer that it was given.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// Close ends the archive. It fails where entries are missing.
func (w *Writer) Close() error {
	err := error(nil)
	if w.next < len(w.manifest.Entries) {
		err = fmt.Errorf("write the bundle: it ends before %s", w.manifest.Entries[w.next].Path)
	} else if err = w.archive.Close(); err != nil {
		err = fmt.Errorf("end the bundle: %w", err)
	}
	return errors.Join(err, w.end())
}

func (w *Writer) end() error {
	if w.zip == nil {
		return nil
	}
	return w.zip.Close()
}
