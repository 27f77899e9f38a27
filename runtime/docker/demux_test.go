package docker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
)

func frame(stream byte, size int, data string) []byte {
	h := make([]byte, 8, 8+len(data))
	h[0] = stream
	binary.BigEndian.PutUint32(h[4:], uint32(size))
	return append(h, data...)
}

func TestDemux(t *testing.T) {
	var in, out, errs bytes.Buffer
	big := strings.Repeat("x", 100_000)
	for _, f := range []struct {
		stream byte
		text   string
	}{{1, "a\n"}, {2, "e\x00\xff"}, {1, ""}, {0, "0"}, {1, big}} {
		in.Write(frame(f.stream, len(f.text), f.text))
	}
	if err := demux(&in, &out, &errs); err != nil {
		t.Fatal(err)
	}
	if out.String() != "a\n0"+big || errs.String() != "e\x00\xff" {
		t.Errorf("stdout has %d bytes, stderr is %q", out.Len(), errs.String())
	}
	if err := demux(bytes.NewReader(frame(1, 3, "abc")), nil, nil); err != nil {
		t.Errorf("without writers: %v", err)
	}
}

func TestDemuxRefuses(t *testing.T) {
	for name, in := range map[string][]byte{
		"4 GiB in a header": frame(1, 0xffffffff, "x"),
		"just too large":    frame(1, maxFrame+1, "x"),
		"unknown stream":    frame(3, 1, "x"),
		"padding":           {1, 2, 0, 0, 0, 0, 0, 1, 'x'},
	} {
		if err := demux(bytes.NewReader(in), io.Discard, io.Discard); !errors.Is(err, errStream) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, in := range map[string][]byte{"half a header": {1, 0}, "half a frame": frame(1, 5, "abc")} {
		if err := demux(bytes.NewReader(in), io.Discard, io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDemux(f *testing.F) {
	f.Add(frame(1, 3, "abc"))
	f.Add(frame(2, 0xffffffff, ""))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		_ = demux(bytes.NewReader(in), &out, &out)
		if out.Len() > len(in) {
			t.Errorf("%d bytes out of %d", out.Len(), len(in))
		}
	})
}
