package bundle

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/problem"
)

// bufferSize is read at once: large enough that system calls do not count.
const bufferSize = 1 << 20

// maxTail is how much may follow the last entry: what tar and other tools fill
// their last record with.
const maxTail = 1 << 20

// Reader reads a bundle front to back and checks everything on the way. What it
// hands out is not to be believed before Next has returned io.EOF.
type Reader struct {
	manifest *Manifest
	limits   Limits
	archive  *tar.Reader
	// all is what the archive is read from: uncompressed, within the limits.
	all *bounded
	// next is the place in the manifest of the entry to come.
	next    int
	current *entryReader
	buffers [][]byte
}

// NewReader reads a bundle's manifest. Its errors, and those of the reader, are
// of class problem.ErrInvalid where the bundle is at fault.
func NewReader(r io.Reader, limits Limits) (*Reader, error) {
	limits = limits.WithDefaults()
	all, err := uncompressed(r, limits)
	if err != nil {
		return nil, err
	}
	b := &Reader{limits: limits, all: all, archive: tar.NewReader(all)}
	header, err := b.archive.Next()
	if errors.Is(err, io.EOF) {
		return nil, refuse("give a bundle that skiff export wrote", "it is empty")
	}
	if err != nil {
		return nil, b.broken(err, "its first entry")
	}
	switch {
	case header.Name != ManifestName || !plain(header):
		return nil, refuse("give a bundle that skiff export wrote, as it was written", "its first entry is %.100q; want the file %s", header.Name, ManifestName)
	case header.Size > limits.ManifestBytes:
		return nil, refuse("export less at once", "its manifest has %d bytes; at most %d are read", header.Size, limits.ManifestBytes)
	}
	data, err := io.ReadAll(io.LimitReader(b.archive, limits.ManifestBytes))
	if err != nil {
		return nil, b.broken(err, ManifestName)
	}
	if b.manifest, err = decodeManifest(data, limits); err != nil {
		return nil, err
	}
	return b, nil
}

// Manifest is what the bundle says it holds. It is the caller's to read only.
func (b *Reader) Manifest() *Manifest { return b.manifest }

// Copy writes what is left of the entry that Next returned, and checks it at its
// end. It does what io.Copy from Next's reader does, and reads ahead meanwhile.
func (b *Reader) Copy(w io.Writer) error {
	e := b.current
	if e == nil || e.err != nil {
		return nil
	}
	if b.buffers == nil {
		b.buffers = newBuffers()
	}
	target := &target{w: w}
	hashed := io.MultiWriter(e.hash, target)
	var n int64
	var err error
	if e.entry.Size > bufferSize {
		n, err = copyAhead(hashed, b.archive, b.buffers)
	} else {
		n, err = io.CopyBuffer(onlyWriter{hashed}, onlyReader{b.archive}, b.buffers[0])
	}
	e.read += n
	switch {
	case target.err != nil:
		e.err = fmt.Errorf("keep %s: %w", e.entry.Path, target.err)
		return e.err
	case err != nil:
		e.err = b.broken(err, e.entry.Path)
		return e.err
	}
	if e.err = e.check(); errors.Is(e.err, io.EOF) {
		return nil
	}
	return e.err
}

// target tells an error of writing from those of reading.
type target struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (t *target) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.err = err
	return n, err
}

// Next goes to the next entry. What was left of the one before is read and
// checked. io.EOF says that all entries were there, each as it should be, and
// nothing else.
func (b *Reader) Next() (*Entry, io.Reader, error) {
	if b.current != nil {
		if _, err := io.Copy(io.Discard, b.current); err != nil {
			return nil, nil, err
		}
		b.current = nil
	}
	header, err := b.archive.Next()
	if errors.Is(err, io.EOF) {
		return nil, nil, b.end()
	}
	if err != nil {
		return nil, nil, b.broken(err, b.expected())
	}
	entry, err := b.match(header)
	if err != nil {
		return nil, nil, err
	}
	b.next++
	b.current = &entryReader{owner: b, entry: entry, hash: sha256.New()}
	return entry, b.current, nil
}

// expected names the entry to come, for messages.
func (b *Reader) expected() string {
	if b.next < len(b.manifest.Entries) {
		return b.manifest.Entries[b.next].Path
	}
	return "its end"
}

// match holds an entry of the archive against the manifest.
func (b *Reader) match(header *tar.Header) (*Entry, error) {
	if err := checkPath(header.Name); err != nil {
		return nil, err
	}
	switch header.Typeflag {
	case tar.TypeSymlink, tar.TypeLink:
		return nil, refuse(damaged, "the entry %q is a link; a bundle holds files alone", header.Name)
	}
	if !plain(header) {
		return nil, refuse(damaged, "the entry %q is not a plain file", header.Name)
	}
	if b.next == len(b.manifest.Entries) || header.Name != b.manifest.Entries[b.next].Path {
		return nil, b.stray(header.Name)
	}
	entry := &b.manifest.Entries[b.next]
	if header.Size != entry.Size {
		return nil, refuse(damaged, "the entry %q has %d bytes; its manifest says %d", entry.Path, header.Size, entry.Size)
	}
	return entry, nil
}

// stray says what is wrong with an entry that is not the one to come.
func (b *Reader) stray(name string) error {
	listed := func(e Entry) bool { return e.Path == name }
	switch {
	case name == ManifestName, slices.ContainsFunc(b.manifest.Entries[:b.next], listed):
		return refuse(damaged, "the entry %q comes twice", name)
	case b.next == len(b.manifest.Entries), !slices.ContainsFunc(b.manifest.Entries[b.next:], listed):
		return refuse(damaged, "the entry %q is not in its manifest", name)
	}
	return refuse(damaged, "the entry %q is missing: %q stands in its place", b.manifest.Entries[b.next].Path, name)
}

// plain reports whether an entry is a regular file whose size is what it takes.
func plain(header *tar.Header) bool {
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return false
		}
	}
	return header.Typeflag == tar.TypeReg
}

// end checks that everything came and that nothing follows.
func (b *Reader) end() error {
	if b.next < len(b.manifest.Entries) {
		return refuse(damaged, "it ends before the entry %q", b.expected())
	}
	var tail [32 << 10]byte
	for left := maxTail; ; {
		n, err := b.all.Read(tail[:])
		for _, c := range tail[:n] {
			if c != 0 {
				return refuse(damaged, "something follows its last entry")
			}
		}
		if left -= n; left < 0 {
			return refuse(damaged, "more than %d bytes follow its last entry", maxTail)
		}
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		if err != nil {
			return b.broken(err, "its end")
		}
	}
}

// broken words an error of the archive.
func (b *Reader) broken(err error, where string) error {
	var list problem.List
	switch {
	case errors.As(err, &list):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return refuse("copy it again", "it breaks off at %s: the file is not whole", where)
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.Is(err, tar.ErrHeader), b.all.from.corrupt(err):
		return refuse("copy it again", "it is damaged at %s: %w", where, err)
	}
	return fmt.Errorf("read the bundle at %s: %w", where, err)
}

// entryReader reads one entry and, at its end, checks it.
type entryReader struct {
	owner *Reader
	entry *Entry
	hash  hash.Hash
	read  int64
	err   error
}

// Read implements io.Reader. io.EOF says that the entry is what it should be.
func (e *entryReader) Read(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	n, err := e.owner.archive.Read(p)
	e.hash.Write(p[:n]) // it never fails
	e.read += int64(n)
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		e.err = e.owner.broken(err, e.entry.Path)
	default:
		e.err = e.check()
	}
	return n, e.err
}

// check is io.EOF where the entry, which was read to its end, is what it should
// be.
func (e *entryReader) check() error {
	switch {
	case e.read != e.entry.Size:
		return e.owner.broken(io.ErrUnexpectedEOF, e.entry.Path)
	case hex.EncodeToString(e.hash.Sum(nil)) != e.entry.SHA256:
		return refuse(damaged, "the entry %q does not have the digest that its manifest says", e.entry.Path)
	default:
		return io.EOF
	}
}

// Sniff says from a file's first bytes whether it may be a bundle. Up to
// SniffBytes are looked at; other archives and documents are none.
func Sniff(head []byte) bool {
	if strings.HasPrefix(string(head), gzipMagic) {
		unzipped, err := gzip.NewReader(strings.NewReader(string(head)))
		if err != nil {
			return false
		}
		first := make([]byte, len(ManifestName)+1)
		// The head of a longer stream ends early, which is no matter.
		n, _ := io.ReadFull(unzipped, first)
		head = first[:n]
	}
	return strings.HasPrefix(string(head), ManifestName+"\x00")
}

// SniffBytes is as much as Sniff needs.
const SniffBytes = 64 << 10

const gzipMagic = "\x1f\x8b"

// source counts what is read of a file and remembers its errors, to tell them
// from those of the archive in it.
type source struct {
	r    io.Reader
	read int64
	err  error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.read += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// corrupt reports whether an error is of the contents, not of their reading.
func (s *source) corrupt(err error) bool { return s.err == nil || !errors.Is(err, s.err) }

// bounded is the uncompressed archive. It ends with a refusal where there is
// more of it than may come of what was read.
type bounded struct {
	r     io.Reader
	from  *source
	ratio int64 // 0 where the archive is not compressed
	floor int64
	read  int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.read += int64(n)
	if b.ratio > 0 && b.read-b.floor > b.from.read*b.ratio {
		return 0, refuse("give it as an uncompressed .tar if it is what it should be",
			"it expands to more than %d times its size", b.ratio)
	}
	return n, err
}

// uncompressed looks at the first bytes and unpacks the stream where it is gzip.
func uncompressed(r io.Reader, limits Limits) (*bounded, error) {
	from := &source{r: r}
	buffer := bufio.NewReaderSize(from, bufferSize)
	head, err := buffer.Peek(len(gzipMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	if string(head) != gzipMagic {
		return &bounded{r: buffer, from: from}, nil
	}
	unzipped, err := gzip.NewReader(buffer)
	if err != nil {
		return nil, refuse("copy it again", "its gzip header is damaged: %w", err)
	}
	return &bounded{r: unzipped, from: from, ratio: limits.Ratio, floor: limits.RatioFloor}, nil
}
