package artifact

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// steadyBytes are handed to the disk at once: large enough to be written in one
// go, small enough that the disk has something to do all the time.
const steadyBytes = 8 << 20

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
