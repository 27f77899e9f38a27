package store_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

// The test binary is its own child: for the crash tests it commits until it is
// killed, for the checks it is the check command.
const (
	childEnv    = "SKIFF_STORE_TEST_CHILD"
	childCommit = "commit"
	childCheck  = "check"
)

// runChild is the child's main; child is false in the parent.
func runChild() (code int, child bool) {
	switch os.Getenv(childEnv) {
	case childCommit:
		return commitForever(os.Args[1]), true
	case childCheck:
		return store.CheckMain(os.Args[1:], os.Stdout), true
	default:
		return 0, false
	}
}

// checkCommand makes this binary the check command.
func checkCommand(t *testing.T) []string {
	t.Helper()
	return []string{"/usr/bin/env", childEnv + "=" + childCheck, testBinary(t)}
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

const crashWriters = 8

// commitForever commits pairs of things, each pair in one transaction, and says
// on stdout what was acknowledged: "writer step". Each writer's things count
// its steps, and their index value says which step it is.
func commitForever(path string) int {
	s, err := store.Open(context.Background(), store.Config{Path: path, Kinds: []store.Kind{storetest.ThingKind()}, LogRevisions: 500})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var out sync.Mutex
	var writers sync.WaitGroup
	for w := range crashWriters {
		writers.Go(func() {
			for step := lastStep(s, w) + 1; ; step++ {
				ops := make([]store.Op, 0, 3)
				for _, half := range []string{"left", "right"} {
					thing := storetest.NewThing("crash", fmt.Sprintf("%s-%d", half, w))
					thing.Spec.Text = strings.Repeat("x", step%700)
					thing.Spec.Tags = []string{fmt.Sprintf("w%d", w), fmt.Sprintf("w%d-%d", w, step)}
					thing.Status.State = strconv.Itoa(step)
					ops = append(ops, store.Op{Verb: store.Put, Kind: storetest.Things, Object: thing})
				}
				ops = append(ops, store.Op{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing("new", fmt.Sprintf("%d-%d", w, step))})
				if _, err := s.Commit(context.Background(), ops...); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Println(w, step)
				out.Unlock()
			}
		})
	}
	writers.Wait()
	return 0
}

// lastStep is how far a writer got before, -1 for not at all.
func lastStep(s *store.Store, writer int) int {
	thing, err := store.GetAs[*storetest.Thing](context.Background(), s, storetest.ThingKey("crash", fmt.Sprintf("left-%d", writer)))
	if err != nil {
		return -1
	}
	step, err := strconv.Atoi(thing.Status.State)
	if err != nil {
		return -1
	}
	return step
}

// TestKilled kills a committing process at random moments and looks at what it
// left: every acknowledged commit is there, none by half, and indexes, objects
// and change log agree.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skiff.db")
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	acknowledged := make(map[int]int)
	total := 0
	for round := range rounds {
		total += crashOnce(t, path, acknowledged)
		verifyCrashed(t, path, acknowledged, round)
		if t.Failed() {
			return
		}
	}
	if total < rounds {
		t.Errorf("only %d commits were acknowledged in %d rounds: the test proves little", total, rounds)
	}
}

// crashOnce runs a child for a random while and kills it.
func crashOnce(t *testing.T, path string, acknowledged map[int]int) (commits int) {
	t.Helper()
	child := exec.CommandContext(t.Context(), testBinary(t), path)
	child.Env = append(os.Environ(), childEnv+"="+childCommit)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Duration(1+rand.IntN(150))*time.Millisecond, func() { _ = child.Process.Kill() })
	defer timer.Stop()
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil { // a line cut off was not said
			break
		}
		var writer, step int
		if _, err := fmt.Sscan(line, &writer, &step); err != nil {
			t.Fatalf("the child said %q", line)
		}
		acknowledged[writer] = step
		commits++
	}
	_, _ = io.Copy(io.Discard, out)
	_ = child.Wait()
	if child.ProcessState.ExitCode() > 0 {
		t.Fatalf("the child failed: %v", child.ProcessState)
	}
	return commits
}

func verifyCrashed(t *testing.T, path string, acknowledged map[int]int, round int) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		return // killed before it was made
	}
	if err := store.Check(t.Context(), path, true); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	s, err := store.Open(t.Context(), store.Config{Path: path, Kinds: []store.Kind{storetest.ThingKind()}, LogRevisions: 500})
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for w := range crashWriters {
		step := lastStep(s, w)
		if ack, told := acknowledged[w]; told && step < ack {
			t.Errorf("round %d: writer %d was told of step %d, the store has %d", round, w, ack, step)
		}
		if step < 0 {
			continue
		}
		// Both halves are of the same step, found by object and by index.
		found, _, err := store.ListAs[*storetest.Thing](t.Context(), s, store.ListOptions{
			Kind: storetest.Things, Index: storetest.ByTag, Prefix: fmt.Sprintf("w%d-%d", w, step), Exact: true,
		})
		if err != nil || len(found) != 2 || found[0].ResourceVersion != found[1].ResourceVersion {
			t.Errorf("round %d: writer %d, step %d: found %d halves, %v", round, w, step, len(found), err)
		}
		all, _, err := store.ListAs[*storetest.Thing](t.Context(), s, store.ListOptions{
			Kind: storetest.Things, Index: storetest.ByTag, Prefix: fmt.Sprintf("w%d", w), Exact: true,
		})
		if err != nil || len(all) != 2 {
			t.Errorf("round %d: writer %d has %d things in the index, %v", round, w, len(all), err)
		}
		// And so is the third object of each commit.
		for _, n := range []int{0, step / 2, step} {
			if _, err := s.Get(t.Context(), storetest.ThingKey("new", fmt.Sprintf("%d-%d", w, n))); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
	}
	verifyLog(t, s)
}

// verifyLog replays the change log's end and compares it with the objects.
func verifyLog(t *testing.T, s *store.Store) {
	t.Helper()
	from := s.Revision() - min(100, s.Revision()-1)
	w, err := s.Watch(t.Context(), store.WatchOptions{From: from})
	if err != nil {
		t.Error(err)
		return
	}
	defer w.Close()
	latest := make(map[store.Key]uint64)
	for seen := from; seen < s.Revision(); {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		events, err := w.Next(ctx)
		cancel()
		if err != nil {
			t.Error(err)
			return
		}
		for _, e := range events {
			if e.Revision != seen && e.Revision != seen+1 {
				t.Errorf("revision %d follows %d", e.Revision, seen)
			}
			seen = e.Revision
			latest[e.Key] = e.Revision
		}
	}
	for key, revision := range latest {
		obj, err := s.Get(t.Context(), key)
		if err != nil || obj.Metadata().ResourceVersion != strconv.FormatUint(revision, 10) {
			t.Errorf("the log says %s is at %d: %v", key, revision, err)
		}
	}
}
