package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrFrame is the class of every frame that cannot be understood. A connection
// that carried one is of no further use.
var ErrFrame = errors.New("malformed frame")

// EncodeFrame renders one frame with its newline.
func EncodeFrame(f Frame) ([]byte, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	if len(b) >= MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrFrame, len(b), MaxFrame)
	}
	return append(b, '\n'), nil
}

// DecodeFrame reads one frame, without its newline. Exactly one field must be
// set; what a newer peer added is ignored.
func DecodeFrame(line []byte) (Frame, error) {
	var f Frame
	if err := json.Unmarshal(line, &f); err != nil {
		return Frame{}, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	set := 0
	for _, there := range []bool{
		f.Hello != nil, f.Launch != nil, f.Started != nil, f.Signal != nil, f.Stop != nil, f.Held != nil,
		f.Exited != nil, f.Exec != nil, f.Execed != nil, f.Base != nil, f.Assign != nil,
		f.Idle != nil, f.Error != "",
	} {
		if there {
			set++
		}
	}
	if set != 1 {
		return Frame{}, fmt.Errorf("%w: %d messages in one frame", ErrFrame, set)
	}
	return f, nil
}

// FrameReader splits a stream into frames and holds no more than one of them,
// so a peer cannot make it grow past MaxFrame.
type FrameReader struct {
	r   io.Reader
	buf []byte // unread bytes are buf[lo:]
	lo  int
}

// NewFrameReader reads frames from r.
func NewFrameReader(r io.Reader) *FrameReader { return &FrameReader{r: r} }

// Next returns the next frame. It returns io.EOF at the end of the stream, and
// io.ErrUnexpectedEOF where the stream ends within a frame.
func (d *FrameReader) Next() (Frame, error) {
	seen := d.lo
	for {
		if i := bytes.IndexByte(d.buf[seen:], '\n'); i >= 0 {
			line := d.buf[d.lo : seen+i]
			d.lo = seen + i + 1
			return DecodeFrame(line)
		}
		if len(d.buf)-d.lo >= MaxFrame {
			return Frame{}, fmt.Errorf("%w: longer than %d bytes", ErrFrame, MaxFrame)
		}
		d.room()
		seen = len(d.buf)
		n, err := d.r.Read(d.buf[len(d.buf):cap(d.buf)])
		d.buf = d.buf[:len(d.buf)+n]
		if n > 0 {
			continue
		}
		if errors.Is(err, io.EOF) && len(d.buf) > d.lo {
			return Frame{}, io.ErrUnexpectedEOF
		}
		if err != nil {
			return Frame{}, err
		}
	}
}

// room makes place for at least one more read.
func (d *FrameReader) room() {
	if d.lo > 0 {
		n := copy(d.buf, d.buf[d.lo:])
		d.buf, d.lo = d.buf[:n], 0
	}
	if len(d.buf) == cap(d.buf) {
		grown := make([]byte, len(d.buf), max(4<<10, 2*cap(d.buf)))
		copy(grown, d.buf)
		d.buf = grown
	}
}
