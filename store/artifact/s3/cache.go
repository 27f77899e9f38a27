package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// recordsFolder lies in the repository's root. Its name can be no namespace's.
const recordsFolder = ".mirror"

// record is what is known of an artifact that is here and in a bucket.
type record struct {
	Namespace string `json:"namespace"`
	URI       string `json:"uri"`
	// Version is what the bucket had when it was copied; empty while that goes on.
	Version string `json:"version,omitempty"`
	// Tag is what an http server named the version by.
	Tag string `json:"tag,omitempty"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// Made is true where this machine made it and uploaded it.
	Made bool `json:"made,omitempty"`

	// used is when it was last asked for: the file's modification time.
	used time.Time
}

// records are kept as one small durable file each. An artifact without one counts
// as made here and nowhere else: it is neither looked for nor removed.
type records struct {
	dir *os.Root
	mu  *sync.Mutex
	all map[Key]record
}

func openRecords(root string) (records, error) {
	path := filepath.Join(root, recordsFolder)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return records{}, fmt.Errorf("open the records of object stores: %w", err)
	}
	dir, err := os.OpenRoot(path)
	if err != nil {
		return records{}, fmt.Errorf("open the records of object stores: %w", err)
	}
	r := records{dir: dir, mu: new(sync.Mutex), all: map[Key]record{}}
	entries, err := os.ReadDir(path)
	for _, entry := range entries {
		one, bad := r.read(entry)
		if bad != nil {
			// Half written when the machine went down.
			err = errors.Join(err, dir.Remove(entry.Name()))
			continue
		}
		r.all[Key{one.Namespace, one.URI}] = one
	}
	if err != nil {
		return records{}, errors.Join(fmt.Errorf("read the records of object stores: %w", err), dir.Close())
	}
	return r, nil
}

func (r *records) read(entry os.DirEntry) (record, error) {
	var one record
	data, err := r.dir.ReadFile(entry.Name())
	if err != nil {
		return one, err
	}
	info, err := entry.Info()
	if err != nil {
		return one, err
	}
	if err := json.Unmarshal(data, &one); err != nil {
		return one, err
	}
	if entry.Name() != (Key{one.Namespace, one.URI}).file() {
		return one, errors.New("it is about something else")
	}
	one.used = info.ModTime()
	return one, nil
}

func (k Key) file() string {
	sum := sha256.Sum256([]byte(k.Namespace + "\x00" + k.URI))
	return hex.EncodeToString(sum[:16]) + ".json"
}

func (r *records) close() error { return r.dir.Close() }

func (r *records) get(key Key) (record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one, found := r.all[key]
	return one, found
}

func (r *records) put(key Key, one record) error {
	one.Namespace, one.URI, one.used = key.Namespace, key.URI, time.Now()
	data, err := json.Marshal(one)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.write(key.file(), data); err != nil {
		return fmt.Errorf("record artifact %s: %w", key.URI, err)
	}
	r.all[key] = one
	return nil
}

// write replaces a file durably.
func (r *records) write(name string, data []byte) error {
	f, err := r.dir.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := r.dir.Rename(name+".new", name); err != nil {
		return err
	}
	folder, err := r.dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// touch notes a use. That it is not lost matters little.
func (r *records) touch(key Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one, found := r.all[key]; found {
		one.used = time.Now()
		r.all[key] = one
		_ = r.dir.Chtimes(key.file(), one.used, one.used)
	}
}

func (r *records) remove(key Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, key)
	if err := r.dir.Remove(key.file()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// same finds another artifact of the namespace that has a version.
func (r *records) same(key Key, version string) (record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for other, one := range r.all {
		if other != key && other.Namespace == key.Namespace && one.Version == version {
			return one, true
		}
	}
	return record{}, false
}

func (r *records) total() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var total int64
	for _, one := range r.all {
		total += one.Size
	}
	return total
}

// byUse are the records, least recently used first.
func (r *records) byUse() []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.all), func(a, b record) int { return a.used.Compare(b.used) })
}

// Hold keeps an artifact here until release is called, however short room is.
func (m *Mirror) Hold(namespace, uri string) (release func()) {
	key := Key{namespace, uri}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[key]++
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.held[key]--; m.held[key] <= 0 {
			delete(m.held, key)
		}
	})
}

// Trim removes copies of what a bucket has as well, least recently used first,
// until all of them are within bounds. What steps have before them stays.
func (m *Mirror) Trim(ctx context.Context) error { return m.trim(ctx, m.cfg.CacheBytes) }

func (m *Mirror) trim(ctx context.Context, bound int64) error {
	total := m.records.total()
	if total <= bound {
		return nil
	}
	inUse := map[Key]bool{}
	if m.cfg.InUse != nil {
		var err error
		if inUse, err = m.cfg.InUse(ctx); err != nil {
			return fmt.Errorf("find the artifacts that are in use: %w", err)
		}
	}
	for _, one := range m.records.byUse() {
		key := Key{one.Namespace, one.URI}
		if total <= bound {
			break
		}
		if inUse[key] {
			continue
		}
		gone, err := m.drop(ctx, key)
		if err != nil {
			return err
		}
		if gone {
			total -= one.Size
		}
	}
	return nil
}

// tidy is Trim, and Relieve, after something else was done, which its failure does
// not undo.
func (m *Mirror) tidy(ctx context.Context) {
	err := m.Trim(ctx)
	if err == nil {
		_, err = m.Relieve(ctx)
	}
	if err != nil && ctx.Err() == nil {
		m.log.Warn("copies of artifacts that buckets have are not removed", "error", err)
	}
}

// drop removes a copy, unless somebody wants it now or no bucket can be asked for
// it any more.
func (m *Mirror) drop(ctx context.Context, key Key) (bool, error) {
	_, kept, err := m.Endpoint(ctx, key.Namespace, key.URI)
	if err == nil && !kept {
		_, kept, err = m.placeToRead(ctx, key.Namespace, key.URI)
	}
	if err != nil || !kept {
		return false, nil //nolint:nilerr // Settings that cannot be read: the copy may be all there is.
	}
	m.mu.Lock()
	wanted := m.held[key] > 0 || m.busy[key] != nil
	mine := make(chan struct{})
	if !wanted {
		m.busy[key] = mine
	}
	m.mu.Unlock()
	if wanted {
		return false, nil
	}
	defer func() {
		m.mu.Lock()
		delete(m.busy, key)
		m.mu.Unlock()
		close(mine)
	}()
	if err := m.Delete(ctx, key.Namespace, key.URI); err != nil {
		return false, err
	}
	m.log.Debug("copy of an artifact removed, its bucket has it", "namespace", key.Namespace, "uri", key.URI)
	return true, m.records.remove(key)
}
