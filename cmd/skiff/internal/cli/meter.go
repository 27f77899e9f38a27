package cli

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/skiff-ml/skiff/server/view"
)

const (
	// meterFirst is after how long a transfer is told of, and how often on a
	// terminal; meterLine how often elsewhere.
	meterFirst = time.Second
	meterLine  = 10 * time.Second
)

// meter tells how far a transfer is, once it takes longer than a moment.
type meter struct {
	out io.Writer
	// what is a verb ("exporting").
	what  string
	total atomic.Int64 // 0 where unknown
	moved atomic.Int64
	// file, where it is not nil, is what the daemon reads or writes: its place in
	// the file is this process's too, and says how far it is.
	file  *os.File
	begin time.Time

	stop, stopped chan struct{}
}

// newMeter begins to watch; end must be called.
func (a *app) newMeter(what string) *meter { return a.newFileMeter(what, nil) }

// newFileMeter is newMeter for a file that the daemon was handed.
func (a *app) newFileMeter(what string, file *os.File) *meter {
	m := &meter{out: a.Err, what: what, file: file, begin: time.Now(), stop: make(chan struct{}), stopped: make(chan struct{})}
	every, inPlace := meterLine, false
	if _, is := terminal(a.Err); is && os.Getenv("TERM") != "dumb" {
		every, inPlace = meterFirst, true
	}
	go m.run(every, inPlace)
	return m
}

func (m *meter) run(every time.Duration, inPlace bool) {
	defer close(m.stopped)
	timer := time.NewTimer(meterFirst)
	defer timer.Stop()
	drawn := false
	for {
		select {
		case <-m.stop:
			if drawn {
				_, _ = fmt.Fprint(m.out, "\r\x1b[K")
			}
			return
		case <-timer.C:
		}
		timer.Reset(every)
		if m.file != nil {
			if at, err := m.file.Seek(0, io.SeekCurrent); err == nil {
				m.moved.Store(at)
			}
		}
		text := m.text(time.Now())
		if inPlace {
			drawn = true
			_, _ = fmt.Fprint(m.out, "\r\x1b[K"+text)
			continue
		}
		_, _ = fmt.Fprintln(m.out, text)
	}
}

// text is the state in one line.
func (m *meter) text(now time.Time) string {
	moved, total := m.moved.Load(), m.total.Load()
	took := now.Sub(m.begin).Seconds()
	switch {
	case moved == 0:
		return m.what + ": preparing"
	case total > 0 && moved >= total:
		return m.what + ": " + view.Bytes(moved) + ", checking"
	case total > 0:
		return fmt.Sprintf("%s: %s of %s (%d%%, %s/s)", m.what, view.Bytes(moved), view.Bytes(total), 100*moved/total, view.Bytes(int64(float64(moved)/took)))
	default:
		return fmt.Sprintf("%s: %s (%s/s)", m.what, view.Bytes(moved), view.Bytes(int64(float64(moved)/took)))
	}
}

// end stops the telling.
func (m *meter) end() {
	close(m.stop)
	<-m.stopped
}

// reader counts what is read.
func (m *meter) reader(r io.Reader) io.Reader { return meterReader{m, r} }

type meterReader struct {
	m *meter
	r io.Reader
}

// Read implements io.Reader.
func (r meterReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.m.moved.Add(int64(n))
	return n, err
}
