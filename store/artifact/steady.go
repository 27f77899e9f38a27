package artifact

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// steadyBytes are handed to the disk at once: large enough to be written in one
// go, small enough that the disk has something to do all the time.
const steadyBytes = 8 << 20

// evenBytes are written at once.
const evenBytes = 1 << 20

// Steadily is a writer to a new file that has the kernel begin to write out what
// came, bit by bit. Without it a file that fits into memory is written only when
// it is synced, and then all at once: the disk rests first, and everybody after.
func Steadily(f *os.File) io.Writer { return &steady{f: f} }

type steady struct {
	f *os.File
	// written is how much came, begun how much the disk was told of.
	written, begun int64
}

// Write implements io.Writer.
func (s *steady) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	s.written += int64(n)
	if s.written-s.begun >= steadyBytes {
		// Only advice: a file system that does not take it syncs all at the end.
		_ = unix.SyncFileRange(int(s.f.Fd()), s.begun, s.written-s.begun, unix.SYNC_FILE_RANGE_WRITE)
		s.begun = s.written
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom: whatever comes in odd pieces is written in
// even ones, since a page that is written out must not be added to meanwhile.
func (s *steady) ReadFrom(r io.Reader) (all int64, err error) {
	buffer := make([]byte, evenBytes)
	for err == nil {
		n := 0
		for n < len(buffer) && err == nil {
			var m int
			m, err = r.Read(buffer[n:])
			n += m
		}
		m, writeErr := s.Write(buffer[:n])
		all += int64(m)
		if writeErr != nil {
			return all, writeErr
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return all, err
}

// Ahead is a reader of a file from its beginning that has the kernel read ahead
// of it further than it would by itself: the disk is not to wait for whoever
// makes something of what was read.
func Ahead(f *os.File) io.ReadCloser { return &ahead{f: f} }

type ahead struct {
	f *os.File
	// read is how much was read, asked how far the disk was asked.
	read, asked int64
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	if a.asked-a.read < steadyBytes {
		// Only advice, as above.
		_ = unix.Fadvise(int(a.f.Fd()), a.asked, steadyBytes, unix.FADV_WILLNEED)
		a.asked += steadyBytes
	}
	n, err := a.f.Read(p)
	a.read += int64(n)
	return n, err
}

// Close implements io.Closer.
func (a *ahead) Close() error { return a.f.Close() }
