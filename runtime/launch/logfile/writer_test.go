package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// disk is a Folder in memory that may run out of room.
type disk struct {
	files map[string]*bytes.Buffer
	room  int // bytes left; negative means endless
}

type file struct {
	d *disk
	b *bytes.Buffer
}

func (d *disk) Create(name string) (io.WriteCloser, error) {
	if d.room == 0 {
		return nil, syscall.ENOSPC
	}
	if d.files[name] != nil {
		return nil, syscall.EEXIST
	}
	d.files[name] = &bytes.Buffer{}
	return file{d, d.files[name]}, nil
}

func (d *disk) Remove(name string) error {
	if d.files[name] == nil {
		return syscall.ENOENT
	}
	delete(d.files, name)
	return nil
}

func (f file) Write(p []byte) (int, error) {
	if f.d.room >= 0 && len(p) > f.d.room {
		n, _ := f.b.Write(p[:f.d.room])
		f.d.room = 0
		return n, syscall.ENOSPC
	}
	if f.d.room >= 0 {
		f.d.room -= len(p)
	}
	return f.b.Write(p)
}

func (f file) Close() error { return nil }

// piece is what the files hold of the output between two gaps.
type piece struct {
	start int64
	text  string
}

// read puts the files together again.
func (d *disk) read(t interface{ Fatalf(string, ...any) }) []piece {
	var indexes []int
	for name := range maps.Keys(d.files) {
		n, err := strconv.Atoi(strings.TrimPrefix(name, launch.LogPrefix))
		if err != nil {
			t.Fatalf("a file is called %s", name)
		}
		indexes = append(indexes, n)
	}
	slices.Sort(indexes)
	pieces := []piece{{}}
	for _, index := range indexes {
		for line := range strings.Lines(d.files[name(index)].String()) {
			if !strings.HasSuffix(line, "\n") {
				continue // cut short by a full disk
			}
			e, err := Parse([]byte(strings.TrimSuffix(line, "\n")))
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			cur := &pieces[len(pieces)-1]
			if e.Stream == launch.LogOffset {
				at, err := Offset(e)
				if err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				if at != cur.start+int64(len(cur.text)) {
					pieces = append(pieces, piece{start: at})
				}
				continue
			}
			cur.text += string(e.Text)
			if !e.Partial {
				cur.text += "\n"
			}
		}
	}
	return pieces
}

func (d *disk) size() (n int64) {
	for _, f := range d.files {
		n += int64(f.Len())
	}
	return n
}

// TestRotation holds the writer to its promise for any output: the head and the
// tail are there, what is there is right to the byte, what is missing is
// counted, and the files stay under the cap.
func TestRotation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(1, 100<<10).Draw(t, "limit")
		d := &disk{files: map[string]*bytes.Buffer{}, room: -1}
		w := NewWriter(d, limit)
		s := w.Stream("stdout")
		var all strings.Builder
		at := time.Unix(1, 0)
		for range rapid.IntRange(0, 60).Draw(t, "writes") {
			var p []byte
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				p = rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
			case 1:
				p = bytes.Repeat([]byte("x"), rapid.IntRange(0, 40000).Draw(t, "long"))
			case 2:
				p = bytes.Repeat([]byte("line\n"), rapid.IntRange(0, 2000).Draw(t, "lines"))
			case 3:
				s.Flush(at)
			}
			all.Write(p)
			s.Write(at, p)
		}
		s.Flush(at)
		written, dropped, err := w.Totals()
		if err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		text := all.String()
		pieces := d.read(t)
		held := int64(0)
		for _, p := range pieces {
			held += int64(len(p.text))
			if text[p.start:p.start+int64(len(p.text))] != p.text {
				t.Fatalf("what is kept from %d on is not what was written", p.start)
			}
		}
		last := pieces[len(pieces)-1]
		if written != int64(len(text)) || held+dropped != written {
			t.Fatalf("wrote %d, counted %d, kept %d and dropped %d", len(text), written, held, dropped)
		}
		if last.start+int64(len(last.text)) != written || pieces[0].start != 0 || len(pieces) > 2 {
			t.Fatalf("the head or the tail is missing: %d pieces, the last ends at %d of %d", len(pieces), last.start+int64(len(last.text)), written)
		}
		if size := d.size(); size > max(limit, minBytes) {
			t.Fatalf("the files hold %d bytes under a cap of %d", size, limit)
		}
		if dropped > 0 && held < max(limit, minBytes)/16 {
			t.Fatalf("%d bytes were dropped, and only %d kept of %d", dropped, held, limit)
		}
	})
}

func TestFullDisk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &disk{files: map[string]*bytes.Buffer{}, room: rapid.IntRange(0, 5000).Draw(t, "room")}
		w := NewWriter(d, 1<<20)
		s := w.Stream("stderr")
		var all strings.Builder
		for i := range rapid.IntRange(1, 100).Draw(t, "writes") {
			line := fmt.Sprintf("line %d\n", i)
			all.WriteString(line)
			s.Write(time.Unix(1, 0), []byte(line))
			if rapid.IntRange(0, 20).Draw(t, "freed") == 0 {
				d.room += rapid.IntRange(0, 500).Draw(t, "more")
			}
		}
		written, dropped, err := w.Totals()
		held := int64(0)
		text := all.String()
		for _, p := range d.read(t) {
			held += int64(len(p.text))
			if text[p.start:p.start+int64(len(p.text))] != p.text {
				t.Fatalf("what is kept from %d on is not what was written", p.start)
			}
		}
		if written != int64(len(text)) || held+dropped != written {
			t.Fatalf("wrote %d, counted %d, kept %d and dropped %d", len(text), written, held, dropped)
		}
		if dropped > 0 && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%d bytes were dropped without a reason: %v", dropped, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05.000000006Z stdout F text"))
	f.Add([]byte("2026-01-02T03:04:05.000000006Z offset F 12"))
	f.Add([]byte("2026-01-02T03:04:05.000000006Z stderr P "))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Parse(line)
		if err != nil {
			if !errors.Is(err, ErrLine) {
				t.Errorf("error %v", err)
			}
			return
		}
		if bytes.IndexByte(line, '\n') >= 0 {
			return // not one line
		}
		again := bytes.TrimSuffix(appendEntry(nil, e.At, e.Stream, e.Partial, e.Text), []byte("\n"))
		back, err := Parse(again)
		if err != nil || !back.At.Equal(e.At) || back.Stream != e.Stream || back.Partial != e.Partial || !bytes.Equal(back.Text, e.Text) {
			t.Errorf("%q becomes %q: %v", line, again, err)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	w := NewWriter(discard{}, 0)
	s := w.Stream("stdout")
	chunk := bytes.Repeat([]byte(strings.Repeat("x", 79)+"\n"), 800)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		s.Write(time.Now(), chunk)
	}
}

type discard struct{}

func (discard) Create(string) (io.WriteCloser, error) { return discard{}, nil }
func (discard) Remove(string) error                   { return nil }
func (discard) Write(p []byte) (int, error)           { return len(p), nil }
func (discard) Close() error                          { return nil }
