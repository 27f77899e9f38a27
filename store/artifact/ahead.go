package artifact

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// aheadBytes are asked of the disk beyond what was read.
const aheadBytes = 8 << 20

// Ahead is a reader of a file from its beginning that has the kernel read ahead
// of it further than it would by itself, from now on: the disk is not to wait for
// whoever makes something of what was read.
func Ahead(f *os.File) io.ReadCloser {
	a := &ahead{f: f}
	a.ask()
	return a
}

type ahead struct {
	f *os.File
	// read is how much was read, asked how far the disk was asked.
	read, asked int64
}

func (a *ahead) ask() {
	// Only advice: whatever comes of it, the file is read.
	_ = unix.Fadvise(int(a.f.Fd()), a.asked, aheadBytes, unix.FADV_WILLNEED)
	a.asked += aheadBytes
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	if a.asked-a.read < aheadBytes {
		a.ask()
	}
	n, err := a.f.Read(p)
	a.read += int64(n)
	return n, err
}

// Close implements io.Closer.
func (a *ahead) Close() error { return a.f.Close() }
