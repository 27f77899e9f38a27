package bundle

import (
	"errors"
	"io"
)

// aheadBuffers is how many buffers a copy that reads ahead goes round with.
const aheadBuffers = 3

// piece is what was read at once.
type piece struct {
	data []byte
	err  error
}

// copyAhead copies src to dst with another goroutine reading ahead, so that
// reading and what it costs go on beside writing. It returns when that goroutine
// has ended. buffers are used and handed back.
func copyAhead(dst io.Writer, src io.Reader, buffers [][]byte) (written int64, err error) {
	free, full := make(chan []byte, len(buffers)), make(chan piece, len(buffers))
	for _, b := range buffers {
		free <- b
	}
	go func() {
		defer close(full)
		for b := range free {
			n, err := fill(src, b)
			// There is room for every buffer there is.
			full <- piece{b[:n], err}
			if err != nil {
				return
			}
		}
	}()
	for p := range full {
		if err == nil && len(p.data) > 0 {
			var n int
			n, err = dst.Write(p.data)
			written += int64(n)
			if err != nil {
				close(free) // the reader ends with what it has at hand
			}
		}
		switch {
		case err != nil: // the rest is of no interest
		case errors.Is(p.err, io.EOF):
		case p.err != nil:
			err = p.err
		default:
			free <- p.data[:cap(p.data)]
		}
	}
	return written, err
}

// fill reads until b is full or src ends.
func fill(src io.Reader, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := src.Read(b[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// newBuffers are for copyAhead.
func newBuffers() [][]byte {
	buffers := make([][]byte, aheadBuffers)
	for i := range buffers {
		buffers[i] = make([]byte, bufferSize)
	}
	return buffers
}
