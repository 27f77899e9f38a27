package portable

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/core"
)

// spool is a file that entries are put together in, one behind the other,
// because their sizes and digests are wanted before any is written.
type spool struct {
	file *os.File
	out  *bufio.Writer
	size int64
}

func (p *Porter) newSpool() (*spool, error) {
	f, err := p.scratch()
	if err != nil {
		return nil, err
	}
	return &spool{file: f, out: bufio.NewWriterSize(f, 1<<20)}, nil
}

func (s *spool) flush() error {
	if err := s.out.Flush(); err != nil {
		return fmt.Errorf("write a spool: %w", err)
	}
	return nil
}

// spooled is an entry in a spool.
type spooled struct {
	s     *spool
	path  string
	begin int64
	hash  hash.Hash
}

func (s *spool) begin(path string) *spooled {
	return &spooled{s: s, path: path, begin: s.size, hash: sha256.New()}
}

// Write implements io.Writer.
func (e *spooled) Write(p []byte) (int, error) {
	n, err := e.s.out.Write(p)
	e.hash.Write(p[:n]) // it never fails
	e.s.size += int64(n)
	return n, err
}

// object writes one object as a line.
func (e *spooled) object(obj core.Object) error {
	meta := obj.Metadata()
	version := meta.ResourceVersion
	meta.ResourceVersion = "" // a revision of this store alone
	data, err := json.Marshal(obj)
	meta.ResourceVersion = version
	if err == nil {
		_, err = e.Write(append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("export %s %s: %w", obj.Type().Kind, meta.Name, err)
	}
	return nil
}

// end closes the entry; it can be opened once the spool is flushed.
func (e *spooled) end() (bundle.Entry, func() (io.ReadCloser, error)) {
	size := e.s.size - e.begin
	entry := bundle.Entry{Path: e.path, Size: size, SHA256: hex.EncodeToString(e.hash.Sum(nil))}
	return entry, func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(e.s.file, e.begin, size)), nil
	}
}
