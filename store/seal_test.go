package store_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

// canary is what must be found nowhere on disk.
const canary = "canary-3f9b-secret-value"

// sealedConfig is a store with one sealed kind and one that is not.
func sealedConfig(dir string) store.Config {
	sealed := storetest.ThingKind()
	sealed.Name, sealed.Indexes, sealed.Sealed = "sealed.test", nil, true
	return store.Config{
		Path: filepath.Join(dir, "skiff.db"), BackupDir: filepath.Join(dir, "backups"),
		Kinds: []store.Kind{sealed, storetest.ThingKind()},
	}
}

func sealedThing(name, text string) *storetest.Thing {
	thing := storetest.NewThing("default", name)
	thing.Spec.Text = text
	thing.Annotations = map[string]string{"note": text}
	return thing
}

func sealedKey(name string) store.Key {
	return store.Key{Kind: "sealed.test", Namespace: "default", Name: name}
}

// onDisk lists the files below dir that hold text, as it is or in base64.
func onDisk(t *testing.T, dir, text string) []string {
	t.Helper()
	encoded := base64.StdEncoding.EncodeToString([]byte(text))
	// The end of the encoding depends on what follows.
	encoded = encoded[:len(encoded)/4*4-4]
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(text)) || bytes.Contains(content, []byte(encoded)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func openSealed(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), sealedConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func commit(t *testing.T, s *store.Store, ops ...store.Op) uint64 {
	t.Helper()
	revision, err := s.Commit(t.Context(), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestSealed(t *testing.T) {
	dir := t.TempDir()
	s := openSealed(t, dir)
	before := s.Revision()
	first := sealedThing("a", canary)
	commit(t, s, store.Op{Verb: store.Create, Kind: "sealed.test", Object: first},
		store.Op{Verb: store.Create, Kind: "sealed.test", Object: sealedThing("b", canary)})
	// The same again changes nothing, though no two sealed forms are alike.
	revision := s.Revision()
	if got := commit(t, s, store.Op{Verb: store.Put, Kind: "sealed.test", Object: sealedThing("a", canary)}); got != revision || first.Generation != 1 {
		t.Errorf("revision %d after %d, generation %d", got, revision, first.Generation)
	}
	changed := sealedThing("a", canary+" changed")
	commit(t, s, store.Op{Verb: store.Put, Kind: "sealed.test", Object: changed})
	if changed.Generation != 2 {
		t.Errorf("generation %d, want 2", changed.Generation)
	}
	held := sealedThing("held", canary)
	held.Finalizers = []string{"x"}
	commit(t, s, store.Op{Verb: store.Create, Kind: "sealed.test", Object: held})
	commit(t, s, store.Op{Verb: store.Delete, Key: sealedKey("held")})
	held.Finalizers, held.ResourceVersion = nil, ""
	commit(t, s, store.Op{Verb: store.Update, Kind: "sealed.test", Object: held})
	commit(t, s, store.Op{Verb: store.Delete, Key: sealedKey("b")})
	if _, err := s.BackupTo(t.Context(), filepath.Join(dir, "backups")); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckNow(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if found := onDisk(t, dir, canary); len(found) > 0 {
		t.Errorf("plain text in %q", found)
	}
	if err := store.Check(t.Context(), filepath.Join(dir, "skiff.db"), true); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(filepath.Join(dir, store.KeyFile))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}

	// Opened again, a watcher reads the change log on disk.
	s = openSealed(t, dir)
	defer func() { _ = s.Close() }()
	got, err := store.GetAs[*storetest.Thing](t.Context(), s, sealedKey("a"))
	if err != nil || got.Spec.Text != canary+" changed" || got.Annotations["note"] != canary+" changed" {
		t.Errorf("%+v, %v", got, err)
	}
	page, err := s.List(t.Context(), store.ListOptions{Kind: "sealed.test", Filter: func(o core.Object) bool { return o.(*storetest.Thing).Spec.Text != "" }})
	if err != nil || len(page.Items) != 1 {
		t.Errorf("%d items, %v", len(page.Items), err)
	}
	watcher, err := s.Watch(t.Context(), store.WatchOptions{From: before})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	events, err := watcher.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range events {
		told = append(told, fmt.Sprint(e.Type, " ", e.Key.Name, " ", e.Object.(*storetest.Thing).Spec.Text))
	}
	want := fmt.Sprintf("[ADDED a %[1]s ADDED b %[1]s MODIFIED a %[1]s changed ADDED held %[1]s MODIFIED held %[1]s DELETED held %[1]s DELETED b %[1]s]", canary)
	if fmt.Sprint(told) != want {
		t.Errorf("events\n%v, want\n%v", told, want)
	}
}

// TestSealedKey: without its key a store with secrets does not open, names the
// file, and is whole again when the file is back.
func TestSealedKey(t *testing.T) {
	dir := t.TempDir()
	keyFile := filepath.Join(dir, store.KeyFile)
	s := openSealed(t, dir)
	commit(t, s, store.Op{Verb: store.Create, Kind: "sealed.test", Object: sealedThing("a", canary)},
		store.Op{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing("default", "plain")})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, "skiff.db"))
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := openSealed(t, other).Close(); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(other, store.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		content []byte // nil: no file
		mode    fs.FileMode
		want    string
	}{
		{"missing", nil, 0, "is missing"},
		{"another store's", foreign, 0o600, "put that file back"},
		{"readable by others", key, 0o644, "chmod 600"},
		{"cut off", key[:20], 0o600, "holds no key"},
		{"empty", []byte{}, 0o600, "holds no key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := os.Remove(keyFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if tc.content != nil {
				if err := os.WriteFile(keyFile, tc.content, tc.mode); err != nil {
					t.Fatal(err)
				}
			}
			_, err := store.Open(t.Context(), sealedConfig(dir))
			if !errors.Is(err, store.ErrKey) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), keyFile) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if text := strings.TrimSpace(string(key)); strings.Contains(fmt.Sprint(err), text[len(text)-20:]) {
				t.Error("the error tells the key")
			}
			now, readErr := os.ReadFile(filepath.Join(dir, "skiff.db"))
			if readErr != nil || !bytes.Equal(now, whole) {
				t.Errorf("the store's file has changed: %v", readErr)
			}
			if _, err := os.Stat(keyFile); tc.content == nil && err == nil {
				t.Error("a new key was made over secrets that it does not open")
			}
		})
	}
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openSealed(t, dir)
	if got, err := store.GetAs[*storetest.Thing](t.Context(), s, sealedKey("a")); err != nil || got.Spec.Text != canary {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSealedRestore: a backup needs the key; where that is lost all else can be had.
func TestSealedRestore(t *testing.T) {
	dir, there := t.TempDir(), t.TempDir()
	s := openSealed(t, dir)
	commit(t, s, store.Op{Verb: store.Create, Kind: "sealed.test", Object: sealedThing("a", canary)},
		store.Op{Verb: store.Create, Kind: storetest.Things, Object: storetest.NewThing("default", "plain")})
	backup, err := s.BackupTo(t.Context(), filepath.Join(dir, "backups"))
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	cfg := store.RestoreConfig{Backup: backup, Path: filepath.Join(there, "skiff.db"), Kinds: sealedConfig(there).Kinds}
	if _, err := store.Restore(t.Context(), cfg); !errors.Is(err, store.ErrKey) || !strings.Contains(err.Error(), filepath.Join(there, store.KeyFile)) {
		t.Errorf("got %v, want ErrKey", err)
	}
	if entries, err := os.ReadDir(there); err != nil || len(entries) > 0 {
		t.Errorf("a refused restore left %v, %v", entries, err)
	}
	key, err := os.ReadFile(filepath.Join(dir, store.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(there, store.KeyFile), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Restore(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s = openSealed(t, there)
	if got, err := store.GetAs[*storetest.Thing](t.Context(), s, sealedKey("a")); err != nil || got.Spec.Text != canary {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// The key is lost: the store itself is the backup that the secrets are left out of.
	if err := os.Remove(filepath.Join(there, store.KeyFile)); err != nil {
		t.Fatal(err)
	}
	kept, err := store.Restore(t.Context(), store.RestoreConfig{
		Backup: cfg.Path, Path: cfg.Path, Kinds: cfg.Kinds, Replace: true, WithoutSealed: true,
	})
	if err != nil || kept == "" {
		t.Fatal(kept, err)
	}
	s = openSealed(t, there)
	defer func() { _ = s.Close() }()
	if _, err := s.Get(t.Context(), sealedKey("a")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want no secret", err)
	}
	if _, err := s.Get(t.Context(), storetest.ThingKey("default", "plain")); err != nil {
		t.Error(err)
	}
	commit(t, s, store.Op{Verb: store.Create, Kind: "sealed.test", Object: sealedThing("a", "new")})
}

// TestSealedKindHasNoIndexes: entries would lie open.
func TestSealedKindHasNoIndexes(t *testing.T) {
	cfg := sealedConfig(t.TempDir())
	cfg.Kinds[1].Sealed = true
	if _, err := store.Open(t.Context(), cfg); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}
