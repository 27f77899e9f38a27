package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

// filled makes a closed store with so many things and returns its file.
func filled(t *testing.T, count int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "skiff.db")
	s := storetest.OpenConfig(t, store.Config{Path: path, Kinds: []store.Kind{storetest.ThingKind()}})
	fill(t, s, "default", count)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func fill(t *testing.T, s *store.Store, namespace string, count int) {
	t.Helper()
	for begin := 0; begin < count; begin += 100 {
		var ops []store.Op
		for i := begin; i < min(count, begin+100); i++ {
			thing := storetest.NewThing(namespace, fmt.Sprintf("thing-%05d", i))
			thing.Spec.Tags = []string{fmt.Sprintf("tag-%d", i%7)}
			thing.Spec.Text = strings.Repeat("text ", 20)
			ops = append(ops, store.Op{Verb: store.Create, Kind: storetest.Things, Object: thing})
		}
		if _, err := s.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
}

func config(t *testing.T, path string) store.Config {
	t.Helper()
	return store.Config{Path: path, Kinds: []store.Kind{storetest.ThingKind()}, CheckCommand: checkCommand(t), BackupDir: filepath.Join(filepath.Dir(path), "backups")}
}

// TestTruncated cuts the file at page boundaries: it is never opened, never
// taken for a new one, never altered, and the error names the newest backup.
func TestTruncated(t *testing.T) {
	path := filled(t, 300)
	cfg := config(t, path)
	s := storetest.OpenConfig(t, cfg)
	backup, err := s.BackupTo(t.Context(), cfg.BackupDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pages := usedPages(t, path)
	for _, keep := range []int{0, 1, 2, 3, 4, 5, 8, pages / 2, pages - 1} {
		t.Run(fmt.Sprintf("%d of %d pages", keep, pages), func(t *testing.T) {
			cut := whole[:keep*4096]
			if err := os.WriteFile(path, cut, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := store.Open(t.Context(), cfg)
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), filepath.Base(backup)) {
				t.Errorf("open: %v; want ErrCorrupt and the backup's name", err)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, cut) {
				t.Errorf("the damaged file was altered (%v)", err)
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(t.Context(), cfg); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("open: %v; want ErrCorrupt", err)
		}
	})
	t.Run("restored", func(t *testing.T) {
		if err := os.WriteFile(path, whole[:4096], 0o600); err != nil {
			t.Fatal(err)
		}
		restore(t, cfg, backup, whole[:4096])
	})
}

// usedPages is how much of a closed store's file is in use; bbolt makes it
// larger than it needs to be.
func usedPages(t *testing.T, path string) int {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	err = db.View(func(tx *bolt.Tx) error {
		size = tx.Size()
		return nil
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return int(size / 4096)
}

// restore puts a backup in place of a damaged file and finds everything.
func restore(t *testing.T, cfg store.Config, backup string, damaged []byte) {
	t.Helper()
	r := store.RestoreConfig{Backup: backup, Path: cfg.Path, CheckCommand: cfg.CheckCommand}
	if _, err := store.Restore(t.Context(), r); !errors.Is(err, store.ErrExists) {
		t.Errorf("restore over a file: %v; want ErrExists", err)
	}
	r.Replace = true
	kept, err := store.Restore(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if old, err := os.ReadFile(kept); err != nil || !bytes.Equal(old, damaged) {
		t.Errorf("the replaced file was not kept as it was: %v", err)
	}
	s := storetest.OpenConfig(t, cfg)
	if _, err := s.Get(t.Context(), storetest.ThingKey("default", "thing-00299")); err != nil {
		t.Error(err)
	}
	if _, err := s.Watch(t.Context(), store.WatchOptions{From: 4}); !errors.Is(err, store.ErrGone) {
		t.Errorf("a watch from before the restore: %v; want ErrGone", err)
	}
	if s.Revision() < 1<<32 {
		t.Errorf("revision %d may have been given out before", s.Revision())
	}
	if _, err := store.Restore(t.Context(), r); !errors.Is(err, store.ErrLocked) {
		t.Errorf("restore under a running store: %v; want ErrLocked", err)
	}
}

// TestFlippedBytes damages one byte at a time anywhere: nothing that is read is
// ever wrong, and the full check finds what matters.
func TestFlippedBytes(t *testing.T) {
	path := filled(t, 200)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	command := checkCommand(t)
	found, flips := 0, 0
	for at := 2*4096 + 20; at < len(whole) && flips < 60; at += 1531 {
		if whole[at] == 0 {
			continue // most likely beyond what a page uses
		}
		flips++
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x15
		copied := filepath.Join(t.TempDir(), "damaged.db")
		if err := os.WriteFile(copied, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := store.Restore(t.Context(), store.RestoreConfig{Backup: copied, Path: copied + ".x", CheckCommand: command})
		if err != nil {
			found++
			if !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrNewer) {
				t.Errorf("byte %d: %v; want ErrCorrupt", at, err)
			}
		}
	}
	// Free pages, and the padding of others, hold bytes that mean nothing.
	if found < flips/2 {
		t.Errorf("the check found %d of %d flipped bytes", found, flips)
	}
}

func TestDamagedValue(t *testing.T) {
	path := filled(t, 50)
	err := editFile(path, func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("objects"))
		key := []byte("things.test\x00default\x00thing-00007")
		value := bytes.Clone(b.Get(key))
		value[len(value)-3] ^= 1
		return b.Put(key, value)
	})
	if err != nil {
		t.Fatal(err)
	}
	s := storetest.OpenConfig(t, store.Config{Path: path, Kinds: []store.Kind{storetest.ThingKind()}})
	_, err = s.Get(t.Context(), storetest.ThingKey("default", "thing-00007"))
	if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "default/thing-00007") {
		t.Errorf("get: %v; want ErrCorrupt that names the object", err)
	}
	if _, err := s.Get(t.Context(), storetest.ThingKey("default", "thing-00008")); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
	if err := s.CheckNow(t.Context()); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("check: %v; want ErrCorrupt", err)
	}
	if h := s.Health(); h.Damage == "" || h.Check.Problem == "" {
		t.Errorf("health does not tell: %+v", h)
	}
}

// editFile changes a closed store's file behind its back.
func editFile(path string, edit func(tx *bolt.Tx) error) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	return errors.Join(db.Update(edit), db.Close())
}

// TestIndexDamage: the full check compares indexes with objects both ways.
func TestIndexDamage(t *testing.T) {
	for name, edit := range map[string]func(tx *bolt.Tx) error{
		"entry too many": func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("indexes")).Put([]byte("things.test\x00tag\x00default\x00zzz\x00\x01thing-00001"), nil)
		},
		"entry of nothing": func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("indexes")).Put([]byte("things.test\x00tag\x00default\x00tag-1\x00\x01nobody"), nil)
		},
		"entry missing": func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("indexes")).Delete([]byte("things.test\x00tag\x00default\x00tag-1\x00\x01thing-00001"))
		},
		"log ahead": func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("log")).Put([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"), []byte("x"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filled(t, 20)
			if err := editFile(path, edit); err != nil {
				t.Fatal(err)
			}
			if err := store.Check(t.Context(), path, false); err != nil {
				t.Errorf("quick check: %v", err)
			}
			if err := store.Check(t.Context(), path, true); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("full check: %v; want ErrCorrupt", err)
			}
		})
	}
}

func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skiff.db")
	cfg := config(t, path)
	storetest.OpenConfig(t, cfg)
	begin := time.Now()
	_, err := store.Open(t.Context(), cfg)
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("second open: %v; want ErrLocked and the holder's pid", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v to say so", took)
	}
}

// TestDiskFull fills a small file system: writes say ErrFull, reads go on, and
// writing resumes by itself.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("cannot mount a small file system here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := storetest.OpenConfig(t, store.Config{Path: filepath.Join(dir, "skiff.db"), Kinds: []store.Kind{storetest.ThingKind()}, LogBytes: 64 << 10})
	fill(t, s, "default", 10)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var full error
	written := 0
	for i := 0; full == nil && i < 10000; i++ {
		thing := storetest.NewThing("full", fmt.Sprintf("%05d", i))
		thing.Spec.Text = strings.Repeat("x", 4000)
		if _, full = s.Commit(t.Context(), store.Op{Verb: store.Create, Kind: storetest.Things, Object: thing}); full == nil {
			written++
		}
	}
	if !errors.Is(full, store.ErrFull) {
		t.Fatalf("a full disk: %v; want ErrFull", full)
	}
	if h := s.Health(); h.Writable || !strings.Contains(h.Problem, "full") {
		t.Errorf("health does not tell: %+v", h)
	}
	things, _, err := store.AllAs[*storetest.Thing](t.Context(), s, store.ListOptions{Kind: storetest.Things, Namespace: "full"})
	if err != nil || len(things) != written {
		t.Errorf("while the disk is full %d of %d are read: %v", len(things), written, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	fill(t, s, "after", 20)
	if h := s.Health(); !h.Writable || h.Problem != "" {
		t.Errorf("health after there is room: %+v", h)
	}
	if err := s.CheckNow(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBackupWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skiff.db")
	cfg := config(t, path)
	cfg.BackupKeep = 2
	var seconds atomic.Int64 // backups of one second would have one name
	cfg.Now = func() time.Time { return time.Unix(1_700_000_000+seconds.Add(1), 0) }
	s := storetest.OpenConfig(t, cfg)
	fill(t, s, "before", 200)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			thing := storetest.NewThing("during", fmt.Sprint(i))
			if _, err := s.Commit(context.Background(), store.Op{Verb: store.Create, Kind: storetest.Things, Object: thing}); err != nil {
				return
			}
		}
	}()
	var last string
	for range 4 {
		var err error
		if last, err = s.BackupTo(t.Context(), cfg.BackupDir); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-stopped
	files, err := filepath.Glob(filepath.Join(cfg.BackupDir, "*"))
	if err != nil || len(files) != 2 || files[1] != last {
		t.Errorf("%d backups are kept, want 2 with %s the newest: %v %v", len(files), last, files, err)
	}
	if h := s.Health(); h.Backup.Path != last || h.Backup.Problem != "" {
		t.Errorf("health: %+v", h.Backup)
	}
	if err := store.Check(t.Context(), last, true); err != nil {
		t.Error(err)
	}
}

// TestUncleanStop: a file that nobody closed is checked in the background.
func TestUncleanStop(t *testing.T) {
	path := filled(t, 100)
	if err := editFile(path, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("clean"), []byte("0")) }); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{nil, checkCommand(t)} {
		s := storetest.OpenConfig(t, store.Config{Path: path, Kinds: []store.Kind{storetest.ThingKind()}, CheckCommand: command})
		deadline := time.Now().Add(20 * time.Second)
		for s.Health().Check.Finished.IsZero() && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		h := s.Health()
		if h.ClosedInOrder || h.Check.Finished.IsZero() || h.Check.Problem != "" {
			t.Errorf("health: %+v", h)
		}
		if left, err := filepath.Glob(path + ".*"); err != nil || len(left) != 1 { // the owner's note
			t.Errorf("left over: %v, %v", left, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := editFile(path, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("clean"), []byte("0")) }); err != nil {
			t.Fatal(err)
		}
	}
}
