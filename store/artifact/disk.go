package artifact

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// diskWrites are under way at once: enough that the disk always has the next
	// one at hand.
	diskWrites = 4
	// diskChunk is written at once; smaller ones cost a disk of a virtual machine
	// a tenth of its speed.
	diskChunk = 4 << 20
	// diskBuffers are those being written, one being filled, and one to spare.
	diskBuffers = diskWrites + 2
	// directFrom is the least size of a file that goes past the page cache: a
	// smaller one is done sooner than the disk answers.
	directFrom = 256 << 10
	// directBlock is what addresses, places and lengths must be multiples of to
	// go past the page cache.
	directBlock = 4096
	// diskAhead is how much room is asked for at a time where the size of a file
	// is not known. Asking may take as long as a sync of somebody else's.
	diskAhead = 512 << 20
	// SizeUnknown is for Disk.File.
	SizeUnknown = -1
)

// Disk writes new files from front to back while their writer goes on, past the
// page cache where they are large: copying into it costs more than all else that
// is done to a byte on its way, pushes out what others have there, and leaves
// the disk idle until somebody syncs. It makes nothing durable; what goes past
// the cache has less left to be synced.
//
// It holds 24 MiB. One goroutine at a time may use it, and calls Wait at the end.
type Disk struct {
	work    chan chunk
	free    chan []byte
	workers sync.WaitGroup
	ended   bool

	mu  sync.Mutex
	err error
}

// chunk is written at once.
type chunk struct {
	file   *DiskFile
	buffer []byte
	length int // what of it is contents
	at     int64
}

// NewDisk makes a Disk and its workers, which end with Wait.
func NewDisk() *Disk {
	d := &Disk{work: make(chan chunk, diskBuffers), free: make(chan []byte, diskBuffers)}
	for range diskBuffers {
		d.free <- nil // made when it is needed
	}
	for range diskWrites {
		d.workers.Go(func() {
			for c := range d.work {
				d.fail(c.file.write(c))
				d.free <- c.buffer
				c.file.done()
			}
		})
	}
	return d
}

// Wait waits until everything is written and returns the first error. Files must
// have been flushed or closed.
func (d *Disk) Wait() error {
	if !d.ended {
		d.ended = true
		close(d.work)
	}
	d.workers.Wait()
	return d.failed()
}

func (d *Disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
}

func (d *Disk) failed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// buffer waits for a free buffer.
func (d *Disk) buffer() []byte {
	if b := <-d.free; b != nil {
		return b
	}
	b := make([]byte, diskChunk+directBlock)
	if over := int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) % directBlock); over > 0 {
		b = b[directBlock-over:]
	}
	return b[:diskChunk:diskChunk]
}

// WriteFile has write fill a new, empty file of unknown size by a Disk of its
// own. The file stays open.
func WriteFile(f *os.File, write func(w io.Writer) error) error {
	d := NewDisk()
	w := d.File(f, SizeUnknown)
	err := errors.Join(write(w), w.Flush())
	if waited := d.Wait(); !errors.Is(err, waited) { // the writer has it already
		err = errors.Join(err, waited)
	}
	return err
}

// DiskFile is a file that a Disk writes.
type DiskFile struct {
	d *Disk
	f *os.File
	// size is SizeUnknown or what is to come; room is what was asked for.
	size, room int64
	direct     atomic.Bool
	// padded says that the last chunk may have been filled up.
	padded bool
	// closes says that the file is to be closed when all is written.
	closes bool
	// buffer is being filled, for the place at; nil between two.
	buffer []byte
	filled int
	at     int64
	// left counts chunks under way, and the writer as one.
	left atomic.Int64
}

// File begins a new, empty file of so many bytes, which may be SizeUnknown. One
// of Close and Flush must be called.
func (d *Disk) File(f *os.File, size int64) *DiskFile {
	file := &DiskFile{d: d, f: f, size: size}
	file.left.Store(1)
	if size == SizeUnknown || size >= directFrom {
		// A file system that cannot do it says so here or at the first write.
		file.padded = setDirect(f, true) == nil
		file.direct.Store(file.padded)
	}
	return file
}

// setDirect turns writing past the page cache on or off.
func setDirect(f *os.File, on bool) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = raw.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err == nil {
			flags &^= unix.O_DIRECT
			if on {
				flags |= unix.O_DIRECT
			}
			_, err = unix.FcntlInt(fd, unix.F_SETFL, flags)
		}
		callErr = err
	})
	return errors.Join(err, callErr)
}

// Write implements io.Writer. An error may be of something that was written
// before, to another file of the Disk too.
func (w *DiskFile) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if w.buffer == nil {
			if err := w.d.failed(); err != nil {
				return written, err
			}
			w.buffer, w.filled = w.d.buffer(), 0
		}
		n := copy(w.buffer[w.filled:], p)
		w.filled += n
		written += n
		p = p[n:]
		if w.filled == len(w.buffer) {
			if err := w.send(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// send hands the buffer to the workers.
func (w *DiskFile) send() error {
	c := chunk{file: w, buffer: w.buffer, length: w.filled, at: w.at}
	w.at += int64(w.filled)
	w.buffer = nil
	err := w.reserve()
	if err == nil && w.size == SizeUnknown {
		// Whoever has the file open too sees how far it is.
		_, err = w.f.Seek(w.at, 0)
	}
	if err != nil {
		err = fmt.Errorf("write %s: %w", w.f.Name(), err)
		w.d.fail(err)
		w.d.free <- c.buffer
		return err
	}
	w.left.Add(1)
	w.d.work <- c
	return nil
}

// reserve asks for the room of what is written past the page cache: without it
// writes that make a file longer wait for each other.
func (w *DiskFile) reserve() error {
	if !w.direct.Load() || w.at <= w.room {
		return nil
	}
	from := w.room
	if w.room = roundUp(w.size); w.size == SizeUnknown {
		w.room = from + diskAhead
	}
	if w.at > w.room {
		w.room = roundUp(w.at) // more than was said comes
	}
	err := retry(func() error { return unix.Fallocate(int(w.f.Fd()), 0, from, w.room-from) })
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return nil
	case errors.Is(err, unix.ENOSPC) && w.size == SizeUnknown:
		return nil // it was a guess; writing says whether there is room
	}
	return err
}

func roundUp(n int64) int64 { return (n + directBlock - 1) / directBlock * directBlock }

// write writes a chunk; workers call it.
func (w *DiskFile) write(c chunk) error {
	if err := w.d.failed(); err != nil {
		return nil // nobody needs it any more, and the first error is kept
	}
	if w.direct.Load() {
		whole := int(roundUp(int64(c.length)))
		clear(c.buffer[c.length:whole])
		_, err := w.f.WriteAt(c.buffer[:whole], c.at)
		if err == nil || !errors.Is(err, unix.EINVAL) {
			return err
		}
		// The file system wants other multiples, or none of it at all.
		w.direct.Store(false)
		if err := setDirect(w.f, false); err != nil {
			return err
		}
	}
	if _, err := w.f.WriteAt(c.buffer[:c.length], c.at); err != nil {
		return err
	}
	if c.length == diskChunk {
		// Only advice: what is not begun now is done when it is synced.
		_ = unix.SyncFileRange(int(w.f.Fd()), c.at, int64(c.length), unix.SYNC_FILE_RANGE_WRITE)
	}
	return nil
}

// Flush hands over what is left. After Wait it is written; the file stays open.
func (w *DiskFile) Flush() error {
	var err error
	if w.buffer != nil {
		err = w.send()
	}
	w.done()
	return err
}

// Close is Flush and closes the file when all is written; errors of that come
// with Wait.
func (w *DiskFile) Close() error {
	w.closes = true
	return w.Flush()
}

// done ends the writer's part, or a chunk's; the last one gives the file its
// size.
func (w *DiskFile) done() {
	if w.left.Add(-1) > 0 {
		return
	}
	var err error
	if w.padded {
		err = w.f.Truncate(w.at)
	}
	if w.direct.Load() && !w.closes {
		err = errors.Join(err, setDirect(w.f, false))
	}
	if w.closes {
		err = errors.Join(err, w.f.Close())
	}
	w.d.fail(err)
}
