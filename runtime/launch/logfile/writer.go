package logfile

import (
	"bytes"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// Folder is where a Writer keeps its files. The Writer is its only user.
type Folder interface {
	// Create makes a file that does not exist yet.
	Create(name string) (io.WriteCloser, error)
	// Remove deletes a file that the Writer created.
	Remove(name string) error
}

// minBytes is the smallest cap that leaves room for an entry in each file.
const minBytes = 4 << 10

// tailFiles is into how many files the tail is cut: when one is full the oldest
// goes, so at least (tailFiles-1)/tailFiles of the tail's share is always there.
const tailFiles = 4

// overhead is what a line has beside its text, at most.
const overhead = MaxLine - launch.LogChunk

// Writer keeps the head and the tail of a command's output in log.0, log.1 ….
// It is safe for concurrent use; the order within a Stream is kept, that across
// streams is the order of the calls.
type Writer struct {
	folder  Folder
	headMax int64
	fileMax int64
	total   int64 // the cap
	chunk   int

	mu      sync.Mutex
	file    io.WriteCloser
	next    int    // index of the file after the current one
	files   []kept // those on disk, the current one last
	line    []byte // the batch for the current file
	stamp   []byte // stampAt, rendered
	stampAt time.Time
	text    int64 // output bytes in line
	written int64 // output bytes in all
	dropped int64 // of them, not on disk
	err     error // the last failure of the disk
	blocked bool  // no file could be had; the next Stream.Write tries again
}

// kept is one file that lies on disk.
type kept struct {
	index int
	disk  int64 // its size
	text  int64 // output bytes it holds
}

// NewWriter writes into folder, at most maxBytes in all (0 means
// launch.DefaultLogBytes, less than 4 KiB means 4 KiB). No file is made before
// the first byte of output.
func NewWriter(folder Folder, maxBytes int64) *Writer {
	if maxBytes <= 0 {
		maxBytes = launch.DefaultLogBytes
	}
	maxBytes = max(maxBytes, minBytes)
	w := &Writer{folder: folder, total: maxBytes, headMax: maxBytes / 4}
	w.fileMax = (maxBytes - w.headMax) / tailFiles
	// The header of a file and one entry must fit.
	w.chunk = int(min(launch.LogChunk, w.fileMax-2*int64(overhead)))
	return w
}

// Totals are the bytes of output written in all and how many of them are not on
// disk any more. The error is the last failure of the disk, nil where there was
// none; output goes on being counted after one.
func (w *Writer) Totals() (written, dropped int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written, w.dropped, w.err
}

// Close closes the current file. Streams must have been flushed.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// entry adds one line to the batch, after making room for it.
func (w *Writer) entry(at time.Time, stream string, partial bool, text []byte) {
	size := int64(len(text))
	if !partial {
		size++
	}
	disk := int64(len(text) + overhead)
	if w.file == nil && !w.blocked || w.file != nil && w.room() < disk {
		w.flush()
		w.rotate(at)
	}
	if w.file == nil {
		w.written += size
		w.dropped += size
		return
	}
	if !at.Equal(w.stampAt) || w.stamp == nil {
		// All that one read brought has one time.
		w.stamp, w.stampAt = appendTime(w.stamp[:0], at), at
	}
	w.line = appendStamped(w.line, w.stamp, stream, partial, text)
	w.text += size
	w.written += size
}

// room is what still fits into the current file behind the batch.
func (w *Writer) room() int64 {
	cur := w.files[len(w.files)-1]
	limit := w.fileMax
	if cur.index == 0 {
		limit = w.headMax
	}
	return limit - cur.disk - int64(len(w.line))
}

// flush writes the batch. What cannot be written is counted as dropped, and the
// file is left: the next one's offset then tells of the gap.
func (w *Writer) flush() {
	if len(w.line) == 0 {
		return
	}
	line, text := w.line, w.text
	w.line, w.text = w.line[:0], 0
	cur := &w.files[len(w.files)-1]
	n, err := w.file.Write(line)
	cur.disk += int64(n)
	if err == nil {
		cur.text += text
		return
	}
	// Whole lines that made it count as kept.
	whole := textIn(line[:n])
	cur.text += whole
	w.dropped += text - whole
	w.fail(err)
}

// fail leaves the current file after a failure of the disk.
func (w *Writer) fail(err error) {
	w.err = err
	if w.file != nil {
		_ = w.file.Close() // the write's error says it already
		w.file = nil
	}
	w.blocked = true
}

// rotate starts the next file and drops the oldest of the tail for it. Where
// that fails there is no current file, and output is counted as dropped.
func (w *Writer) rotate(at time.Time) {
	if w.file != nil {
		if err := w.file.Close(); err != nil {
			w.err = err
		}
		w.file = nil
	}
	for w.next > 0 && w.used()+w.fileMax > w.total {
		i := 0
		if len(w.files) > 0 && w.files[0].index == 0 {
			i = 1 // the head stays
		}
		if i >= len(w.files) {
			break
		}
		// A file that cannot be removed is forgotten all the same: the name is
		// never used again, and the reader sees that its bytes are out of order.
		if err := w.folder.Remove(name(w.files[i].index)); err != nil {
			w.err = err
		}
		w.dropped += w.files[i].text
		w.files = append(w.files[:i], w.files[i+1:]...)
	}
	f, err := w.folder.Create(name(w.next))
	w.next++
	if err != nil {
		w.err, w.blocked = err, true
		return
	}
	w.file = f
	w.files = append(w.files, kept{index: w.next - 1})
	if w.next == 1 {
		return
	}
	head := appendEntry(nil, at, launch.LogOffset, false, strconv.AppendInt(nil, w.written, 10))
	n, err := f.Write(head)
	w.files[len(w.files)-1].disk = int64(n)
	if err != nil {
		w.fail(err)
	}
}

// used is what the files hold together.
func (w *Writer) used() int64 {
	var n int64
	for _, f := range w.files {
		n += f.disk
	}
	return n
}

func name(index int) string { return launch.LogPrefix + strconv.Itoa(index) }

// textIn counts the bytes of output in the whole lines of b.
func textIn(b []byte) int64 {
	var n int64
	for {
		line, rest, ok := bytes.Cut(b, []byte{'\n'})
		if !ok {
			return n
		}
		if e, err := Parse(line); err == nil {
			n += Size(e)
		}
		b = rest
	}
}
