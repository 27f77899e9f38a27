package host

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/logfile"
)

// LogOptions choose what of a log is read. The zero value is all there is now.
type LogOptions struct {
	// Follow goes on until the launcher has ended.
	Follow bool
	// Since drops what was read from the command before that time.
	Since time.Time
	// TailLines keeps only that many last lines of what is there at the start;
	// 0 keeps all, a negative number none.
	TailLines int
	// Streams are the wanted ones ("stdout", "stderr"); empty means both.
	Streams []string
}

// LogEntry is one entry of a log, or, where Dropped is above 0, the place at
// which so many bytes of output are missing.
type LogEntry struct {
	launch.LogEntry
	Dropped int64
}

// maxLogFiles bounds how many log files a folder may show: a launcher keeps
// five, a hostile folder holds any number.
const maxLogFiles = 1000

// OpenLog reads the log of a control folder in order, across its files. The
// text of an entry is valid until the next one. An error ends the sequence;
// with Follow, ctx's cause is one.
func (h *Host) OpenLog(ctx context.Context, dir string, opts LogOptions) iter.Seq2[LogEntry, error] {
	return func(yield func(LogEntry, error) bool) {
		err := h.readLog(ctx, dir, opts, yield)
		if err != nil && !errors.Is(err, errStopped) {
			yield(LogEntry{}, err)
		}
	}
}

// errStopped: the consumer wants no more.
var errStopped = errors.New("stopped")

func (h *Host) readLog(ctx context.Context, dir string, opts LogOptions, yield func(LogEntry, error) bool) error {
	d, err := openFolder(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	changed := make(<-chan struct{})
	if opts.Follow {
		sub, err := h.logs.subscribe(d)
		if err != nil {
			return err
		}
		defer sub.cancel()
		changed = sub.C
	}
	r := &logReader{dir: d, opts: opts, index: -1}
	defer r.close()
	if err := r.seekTail(); err != nil {
		return err
	}
	for tries := 0; ; {
		// Asked before the reading: what was written before the end is read.
		ended := !opts.Follow || logEnded(dir)
		if err := r.read(ctx, yield); err != nil {
			return err
		}
		if ended {
			return nil
		}
		pause := recheck
		if tries < len(settle) {
			pause = settle[tries]
			tries++
		}
		select {
		case <-changed:
			tries = 0
			continue
		default:
		}
		if err := h.wait(ctx, changed, pause); err != nil {
			return err
		}
	}
}

// logEnded says that no launcher will write any more.
func logEnded(dir string) bool {
	s, begun, err := ReadStatus(dir)
	if err != nil {
		return true
	}
	if begun && s.Final() {
		return true
	}
	_, ok, err := ReadExit(dir)
	return ok || err != nil // the record comes after the last line
}

// logReader walks the files of one log.
type logReader struct {
	dir  *os.File
	opts LogOptions

	file  *os.File
	index int    // of file; -1 before the first
	buf   []byte // the unread part of what was read
	lo    int
	pos   int64 // output bytes passed so far
	known bool  // pos is right: false behind a file whose start was not read
	skip  int   // lines of the wanted streams that the tail leaves out
}

func (r *logReader) close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}

// read yields all that is there now.
func (r *logReader) read(ctx context.Context, yield func(LogEntry, error) bool) error {
	for {
		if r.file != nil {
			if err := r.readFile(ctx, yield); err != nil {
				return err
			}
		}
		next, err := r.next()
		if err != nil || next < 0 {
			return err
		}
		// The launcher was done with this file when it made the next one.
		if r.file != nil {
			if err := r.readFile(ctx, yield); err != nil {
				return err
			}
		}
		if err := r.open(next); err != nil {
			return err
		}
	}
}

// next is the index of the file that follows, -1 where there is none yet.
func (r *logReader) next() (int, error) {
	files, err := listLogs(r.dir)
	if err != nil {
		return -1, err
	}
	for _, index := range files {
		if index > r.index {
			return index, nil
		}
	}
	return -1, nil
}

// open goes to another file. One that was dropped meanwhile is skipped.
func (r *logReader) open(index int) error {
	r.close()
	r.index, r.buf, r.lo = index, r.buf[:0], 0
	f, _, err := openFile(r.dir, launch.LogPrefix+strconv.Itoa(index))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.file = f
	return nil
}

// readFile yields the whole lines that the current file holds by now.
func (r *logReader) readFile(ctx context.Context, yield func(LogEntry, error) bool) error {
	for {
		line, err := r.line()
		if err != nil || line == nil {
			return err
		}
		e, err := logfile.Parse(line)
		if err != nil {
			// Not the launcher's: the command has the folder's rights and wrote
			// into its own log. Shown as it is.
			e = launch.LogEntry{Stream: "stdout", Text: line}
		}
		if err := r.pass(e, yield); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// pass yields an entry that is wanted, and the gap before it.
func (r *logReader) pass(e launch.LogEntry, yield func(LogEntry, error) bool) error {
	if e.Stream == launch.LogOffset {
		at, err := logfile.Offset(e)
		if err != nil {
			return nil
		}
		gap := at - r.pos
		r.pos = at
		if gap > 0 && r.known && !yield(LogEntry{LogEntry: launch.LogEntry{At: e.At}, Dropped: gap}, nil) {
			return errStopped
		}
		r.known = true
		return nil
	}
	r.known = true
	r.pos += logfile.Size(e)
	if !r.wanted(e) {
		return nil
	}
	if r.skip > 0 {
		if !e.Partial {
			r.skip--
		}
		return nil
	}
	if !yield(LogEntry{LogEntry: e}, nil) {
		return errStopped
	}
	return nil
}

func (r *logReader) wanted(e launch.LogEntry) bool {
	if len(r.opts.Streams) > 0 && !slices.Contains(r.opts.Streams, e.Stream) {
		return false
	}
	return r.opts.Since.IsZero() || !e.At.Before(r.opts.Since)
}

// line is the next whole line, nil where there is none yet. A longer one than a
// launcher writes is cut.
func (r *logReader) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(r.buf[r.lo:], '\n'); i >= 0 {
			line := r.buf[r.lo : r.lo+i]
			r.lo += i + 1
			return line, nil
		}
		if len(r.buf)-r.lo > logfile.MaxLine {
			line := r.buf[r.lo:]
			r.lo = len(r.buf)
			return line, nil
		}
		rest := copy(r.buf[:cap(r.buf)], r.buf[r.lo:])
		r.lo = 0
		r.buf = slices.Grow(r.buf[:rest], 64<<10)
		n, err := r.file.Read(r.buf[rest : rest+64<<10])
		r.buf = r.buf[:rest+n]
		if n == 0 {
			_ = err // the end for now, or a file that cannot be read
			return nil, nil
		}
	}
}

// seekTail goes to where the last lines begin.
func (r *logReader) seekTail() error {
	r.known = true
	if r.opts.TailLines == 0 {
		return nil
	}
	files, err := listLogs(r.dir)
	if err != nil || len(files) == 0 {
		return err
	}
	want, have := max(r.opts.TailLines, 0), 0
	start := len(files) - 1
	for {
		n, open, err := r.countLines(files[start])
		if err != nil {
			return err
		}
		have += n
		if open && start == len(files)-1 {
			have++ // a last line without its end is one too
		}
		if have >= want || start == 0 {
			break
		}
		start--
	}
	r.skip = max(have-want, 0)
	if start > 0 {
		r.index = files[start] - 1
		r.known = false
	}
	return nil
}

// countLines counts the wanted lines of one file, and says whether its last is
// unfinished.
func (r *logReader) countLines(index int) (n int, open bool, err error) {
	c := &logReader{dir: r.dir, opts: r.opts}
	if err := c.open(index); err != nil || c.file == nil {
		return 0, false, err
	}
	defer c.close()
	for {
		line, err := c.line()
		if err != nil || line == nil {
			return n, open, err
		}
		e, err := logfile.Parse(line)
		if err != nil {
			e = launch.LogEntry{Stream: "stdout"}
		}
		if e.Stream == launch.LogOffset || !r.wanted(e) {
			continue
		}
		if open = e.Partial; !open {
			n++
		}
	}
}

// listLogs lists the indexes of a folder's log files in order.
func listLogs(dir *os.File) ([]int, error) {
	// A handle of its own: reading names moves the folder's position.
	d, err := openFolder(dir.Name())
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var found []int
	for len(found) < maxLogFiles {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			number, ok := strings.CutPrefix(name, launch.LogPrefix)
			index, err := strconv.Atoi(number)
			if ok && err == nil && index >= 0 && strconv.Itoa(index) == number {
				found = append(found, index)
			}
		}
		if err != nil || len(names) == 0 {
			break
		}
	}
	slices.Sort(found)
	return found, nil
}
