package launch

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFrameReader(t *testing.T) {
	var stream bytes.Buffer
	for _, f := range []Frame{
		{Hello: &Hello{Version: 1, Phase: PhaseWaiting}},
		{Launch: &Command{ID: "a", Argv: []string{strings.Repeat("x", 100_000)}}},
		{Error: "no"},
	} {
		b, err := EncodeFrame(f)
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(b)
	}
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(stream.Bytes()), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream.Bytes())),
	} {
		frames := NewFrameReader(r)
		hello, err1 := frames.Next()
		cmd, err2 := frames.Next()
		last, err3 := frames.Next()
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if hello.Hello == nil || cmd.Launch == nil || len(cmd.Launch.Argv[0]) != 100_000 || last.Error != "no" {
			t.Errorf("%s: got %+v, %+v, %+v", name, hello, cmd, last)
		}
		if _, err := frames.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
}

func TestFrameReaderIsBounded(t *testing.T) {
	endless := NewFrameReader(io.LimitReader(zeros{}, 10*MaxFrame))
	if _, err := endless.Next(); !errors.Is(err, ErrFrame) {
		t.Errorf("an endless frame: %v", err)
	}
	if cap(endless.buf) > 2*MaxFrame+8<<10 {
		t.Errorf("it holds %d bytes", cap(endless.buf))
	}
	if _, err := NewFrameReader(strings.NewReader(`{"error":"x"}`)).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a frame: %v", err)
	}
	if _, err := EncodeFrame(Frame{Error: strings.Repeat("x", MaxFrame)}); !errors.Is(err, ErrFrame) {
		t.Errorf("too long a frame: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func FuzzDecodeFrame(f *testing.F) {
	f.Add([]byte(`{"hello":{"version":1,"phase":"waiting"}}`))
	f.Add([]byte(`{"launch":{"id":"a","argv":["x"]},"error":"y"}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"stop":{"grace":-1}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		frame, err := DecodeFrame(line)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Errorf("error %v", err)
			}
			return
		}
		b, err := EncodeFrame(frame)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewFrameReader(bytes.NewReader(b)).Next(); err != nil {
			t.Errorf("%s is not read again: %v", b, err)
		}
	})
}

// TestEveryMessage: each field of a frame is a message that the other side takes.
func TestEveryMessage(t *testing.T) {
	kind := reflect.TypeFor[Frame]()
	for i := range kind.NumField() {
		var f Frame
		switch field := reflect.ValueOf(&f).Elem().Field(i); field.Kind() {
		case reflect.Pointer:
			field.Set(reflect.New(field.Type().Elem()))
		default:
			field.SetString("x")
		}
		b, err := EncodeFrame(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeFrame(bytes.TrimSpace(b)); err != nil {
			t.Errorf("%s: %v", kind.Field(i).Name, err)
		}
	}
}
