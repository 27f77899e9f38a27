package bundle

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"runtime"
)

const (
	// blockSize is what is packed as one gzip member: large enough that a
	// member's twenty bytes do not count, small enough to be done side by side.
	blockSize = 1 << 20
	// outputSize is what is written at once.
	outputSize = 1 << 20
	// storedMost is the most that one stored block of deflate holds.
	storedMost = math.MaxUint16
	// maxEntropy, in bits a byte, is above what text and code have and below
	// what weights, images and archives do.
	maxEntropy = 7
	// sampleSize is looked at to tell which of them a block is.
	sampleSize = 16 << 10
	// maxShrink is how much a block may shrink: far within what a reader takes
	// for a bomb (DefaultRatio). Huffman codes alone shrink eight times at most.
	maxShrink = DefaultRatio / 2
)

// blocks writes gzip as a row of members, a block each, which every gunzip
// reads as one stream. Members that are squeezed are made side by side and
// written in order; the others cost a checksum.
type blocks struct {
	// squeeze says whether what is written from now on is to be compressed, as
	// far as it will shrink.
	squeeze bool

	w       *bufio.Writer
	filling []byte
	// queue is members under way, oldest first, free buffers of those done.
	queue []chan member
	free  []*squeezer
	most  int
	err   error
}

// member is one packed block.
type member struct {
	by   *squeezer
	data []byte
	err  error
}

func newBlocks(w io.Writer) *blocks {
	return &blocks{w: bufio.NewWriterSize(w, outputSize), filling: make([]byte, 0, blockSize), most: max(1, runtime.GOMAXPROCS(0))}
}

// Write implements io.Writer.
func (b *blocks) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n := len(p)
	for len(p) > 0 {
		if !b.squeeze && len(b.filling) == 0 && len(p) >= blockSize {
			// A whole block is stored from where it lies.
			if b.err = b.store(p[:blockSize]); b.err != nil {
				return 0, b.err
			}
			p = p[blockSize:]
			continue
		}
		take := min(len(p), blockSize-len(b.filling))
		b.filling = append(b.filling, p[:take]...)
		p = p[take:]
		if len(b.filling) == blockSize {
			if b.err = b.flush(); b.err != nil {
				return 0, b.err
			}
		}
	}
	return n, nil
}

// flush packs what has been gathered.
func (b *blocks) flush() error {
	if len(b.filling) == 0 {
		return nil
	}
	if !b.squeeze || entropy(b.filling) > maxEntropy {
		err := b.store(b.filling)
		b.filling = b.filling[:0]
		return err
	}
	if len(b.queue) == b.most {
		if err := b.oldest(); err != nil {
			return err
		}
	}
	s := &squeezer{block: make([]byte, 0, blockSize)}
	if last := len(b.free) - 1; last >= 0 {
		s, b.free = b.free[last], b.free[:last]
	}
	s.block, b.filling = b.filling, s.block[:0]
	done := make(chan member, 1)
	b.queue = append(b.queue, done)
	go func() { done <- s.pack() }()
	return nil
}

// oldest waits for the oldest member and writes it.
func (b *blocks) oldest() error {
	m := <-b.queue[0]
	b.queue = b.queue[1:]
	b.free = append(b.free, m.by)
	if m.err != nil {
		return m.err
	}
	_, err := b.w.Write(m.data)
	return err
}

// drain writes all members under way.
func (b *blocks) drain() error {
	for len(b.queue) > 0 {
		if err := b.oldest(); err != nil {
			return err
		}
	}
	return nil
}

// Close writes what is left and waits for whatever was begun. It does not close
// what it writes to.
func (b *blocks) Close() error {
	if b.err == nil {
		b.err = b.flush()
	}
	if b.err == nil {
		b.err = b.drain()
	}
	for _, done := range b.queue {
		<-done
	}
	b.queue = nil
	if b.err == nil {
		b.err = b.w.Flush()
	}
	if b.err != nil {
		return fmt.Errorf("write the bundle: %w", b.err)
	}
	return nil
}

// gzipHeader is of a member without name or time, of an unknown system.
const gzipHeader = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// trailer is the checksum and the length of a member's contents.
func trailer(block []byte) (t [8]byte) {
	binary.LittleEndian.PutUint32(t[:4], crc32.ChecksumIEEE(block))
	binary.LittleEndian.PutUint32(t[4:], uint32(len(block)))
	return t
}

// store writes a block as a member of stored blocks.
func (b *blocks) store(block []byte) error {
	if err := b.drain(); err != nil {
		return err
	}
	if _, err := b.w.WriteString(gzipHeader); err != nil {
		return err
	}
	end := trailer(block)
	for len(block) > 0 {
		part := block[:min(len(block), storedMost)]
		block = block[len(part):]
		var head [5]byte
		if len(block) == 0 {
			head[0] = 1 // the last one
		}
		binary.LittleEndian.PutUint16(head[1:], uint16(len(part)))
		binary.LittleEndian.PutUint16(head[3:], ^uint16(len(part)))
		if _, err := b.w.Write(head[:]); err != nil {
			return err
		}
		if _, err := b.w.Write(part); err != nil {
			return err
		}
	}
	_, err := b.w.Write(end[:])
	return err
}

// squeezer compresses one block at a time.
type squeezer struct {
	block []byte
	out   bytes.Buffer
	deft  *flate.Writer
	plain *flate.Writer
}

func (s *squeezer) pack() member {
	err := s.deflate(&s.deft, flate.BestSpeed)
	if err == nil && s.out.Len()*maxShrink < len(s.block) {
		err = s.deflate(&s.plain, flate.HuffmanOnly)
	}
	end := trailer(s.block)
	s.out.Write(end[:])
	return member{by: s, data: s.out.Bytes(), err: err}
}

func (s *squeezer) deflate(w **flate.Writer, level int) error {
	s.out.Reset()
	s.out.WriteString(gzipHeader)
	if *w == nil {
		made, err := flate.NewWriter(&s.out, level)
		if err != nil {
			return err
		}
		*w = made
	} else {
		(*w).Reset(&s.out)
	}
	if _, err := (*w).Write(s.block); err != nil {
		return err
	}
	return (*w).Close()
}

// entropy estimates, from samples over a block, how many bits a byte of it says.
func entropy(block []byte) float64 {
	const pieces = 8
	var counts [256]int
	total := 0
	piece := min(len(block), sampleSize/pieces)
	for i := range pieces {
		at := (len(block) - piece) * i / pieces
		for _, c := range block[at : at+piece] {
			counts[c]++
		}
		total += piece
	}
	bits := 0.0
	for _, n := range counts {
		if n > 0 {
			p := float64(n) / float64(total)
			bits -= p * math.Log2(p)
		}
	}
	return bits
}
