package logfile

import (
	"bytes"
	"time"
)

// Stream is one of the command's two outputs. Calls for one Stream must not overlap.
type Stream struct {
	w       *Writer
	name    string
	pending []byte // an unfinished line, shorter than a chunk
}

// Stream returns the writer of one of the command's outputs, "stdout" or "stderr".
func (w *Writer) Stream(name string) *Stream { return &Stream{w: w, name: name} }

// Write adds output that was read at the given time. It never fails: what the
// disk refuses is counted.
func (s *Stream) Write(at time.Time, p []byte) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.blocked = false
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte{'\n'})
		if room := s.w.chunk - len(s.pending); len(line) > room {
			s.emit(at, true, line[:room])
			p = p[room:]
			continue
		}
		if !whole {
			s.pending = append(s.pending, line...)
			break
		}
		s.emit(at, false, line)
		p = rest
	}
	s.w.flush()
}

// Pending says whether an unfinished line is held back.
func (s *Stream) Pending() bool { return len(s.pending) > 0 }

// Flush writes the unfinished line as a part.
func (s *Stream) Flush(at time.Time) {
	if len(s.pending) == 0 {
		return
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.emit(at, true, nil)
	s.w.flush()
}

// emit writes what is pending and text as one entry.
func (s *Stream) emit(at time.Time, partial bool, text []byte) {
	if len(s.pending) > 0 {
		s.pending = append(s.pending, text...)
		text = s.pending
	}
	s.w.entry(at, s.name, partial, text)
	s.pending = s.pending[:0]
}
