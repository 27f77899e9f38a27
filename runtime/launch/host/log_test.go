package host_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

func TestFollowLiveLogAcrossFiles(t *testing.T) {
	b := newBox(t, launch.Config{Log: launch.LogConfig{MaxBytes: 64 << 10}}).start()
	var lines []string
	var dropped int64
	done := make(chan error, 1)
	go func() {
		for e, err := range b.h.OpenLog(b.ctx(), b.dir, host.LogOptions{Follow: true}) {
			if err != nil {
				done <- err
				return
			}
			dropped += e.Dropped
			if e.Dropped == 0 {
				lines = append(lines, string(e.Text))
			}
		}
		done <- nil
	}()
	b.launch("a", `i=0; while [ $i -lt 2000 ]; do echo "line $i ........................................................"; i=$((i+1)); done; printf last`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if lines[0][:7] != "line 0 " || lines[len(lines)-1] != "last" {
		t.Errorf("from %q to %q", lines[0], lines[len(lines)-1])
	}
	// In order, and what is missing is told: a line has its number's length and
	// 63 bytes more.
	next, missing := 0, int64(0)
	for _, line := range lines[:len(lines)-1] {
		var n int
		if _, err := fmt.Sscanf(line, "line %d ", &n); err != nil || n < next {
			t.Fatalf("%q after line %d", line, next-1)
		}
		for ; next < n; next++ {
			missing += int64(len(fmt.Sprint(next)) + 63)
		}
		next = n + 1
	}
	if missing != dropped {
		t.Errorf("%d bytes are missing, the markers say %d", missing, dropped)
	}
}

func TestLogShowsUnfinishedLines(t *testing.T) {
	b := newBox(t, launch.Config{}).start()
	b.launch("a", "printf 'password: '; sleep 600")
	b.awaitLog("password: ")
}

func TestLogSinceAndTail(t *testing.T) {
	b := newBox(t, launch.Config{}).start()
	b.launch("a", "echo one; echo err >&2; echo two; sleep 0.3; echo three; printf four")
	b.end()
	var third time.Time
	for e, err := range b.h.OpenLog(b.ctx(), b.dir, host.LogOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Text) == "three" {
			third = e.At
		}
	}
	stdout := []string{"stdout"}
	for _, tt := range []struct {
		opts host.LogOptions
		want string
	}{
		{host.LogOptions{Streams: stdout}, "one\ntwo\nthree\nfour"},
		{host.LogOptions{Streams: stdout, TailLines: 2}, "three\nfour"},
		{host.LogOptions{Streams: stdout, TailLines: 3}, "two\nthree\nfour"},
		{host.LogOptions{Streams: stdout, TailLines: 100}, "one\ntwo\nthree\nfour"},
		{host.LogOptions{Streams: stdout, TailLines: -1}, ""},
		{host.LogOptions{Streams: []string{"stderr"}, TailLines: 1}, "err\n"},
		{host.LogOptions{Since: third}, "three\nfour"},
		{host.LogOptions{Since: third.Add(time.Hour)}, ""},
		{host.LogOptions{Follow: true, Streams: stdout, TailLines: 2}, "three\nfour"},
	} {
		if got := b.log(tt.opts); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.opts, got, tt.want)
		}
	}
}

func TestTailAcrossFiles(t *testing.T) {
	b := newBox(t, launch.Config{Log: launch.LogConfig{MaxBytes: 32 << 10}}).start()
	b.launch("a", `i=0; while [ $i -lt 1000 ]; do echo "line $i"; i=$((i+1)); done`)
	b.end()
	got := b.log(host.LogOptions{TailLines: 200})
	if !strings.HasPrefix(got, "line 800\n") || !strings.HasSuffix(got, "line 999\n") || strings.Count(got, "\n") != 200 {
		t.Errorf("the tail is %d lines: %.20q … ", strings.Count(got, "\n"), got)
	}
}

func TestFollowEnds(t *testing.T) {
	b := newBox(t, launch.Config{}).start()
	b.launch("a", "echo up; exec sleep 600")
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(b.ctx())
	defer cancel(nil)
	for e, err := range b.h.OpenLog(ctx, b.dir, host.LogOptions{Follow: true}) {
		if err != nil {
			if !errors.Is(err, stop) {
				t.Errorf("the log ended with %v", err)
			}
			break
		}
		if string(e.Text) == "up" {
			cancel(stop)
		}
	}
	// A launcher that is killed ends the log, too.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, err := range b.h.OpenLog(b.ctx(), b.dir, host.LogOptions{Follow: true}) {
			if err != nil {
				t.Error(err)
			}
		}
	}()
	_ = b.cmd.Process.Kill()
	<-done
}
