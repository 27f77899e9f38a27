package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/skiff-ml/skiff/runtime"
)

// ledgerFile is where the containers there are stand written, in STATE/process.
const ledgerFile = "containers"

// ledger is the list of the containers there are, on disk: a line for each that
// is made and a line for each that is removed, appended. A step so costs no file
// of its own, which a file system would have to find room for, and again lose.
// It is safe for concurrent use. A line that a crash cut off is none.
type ledger struct {
	path string

	mu    sync.Mutex
	lines int
	live  map[string][]byte // the line that made it, by name
	odd   [][]byte          // lines that could not be read: they stay
}

// line is one change. Groups are the container's control groups, where it has
// them for itself.
type line struct {
	Spec    json.RawMessage `json:"spec,omitempty"`
	Groups  []string        `json:"groups,omitempty"`
	Removed string          `json:"removed,omitempty"`
}

// saved is a container as the ledger has it.
type saved struct {
	spec   runtime.ContainerSpec
	hash   string // of the spec as it is written
	groups []string
}

// openLedger reads the ledger of a folder and returns the containers in it. A
// line that cannot be read stays where it is, and bad hears of it.
func openLedger(dir string, bad func(error)) (*ledger, []saved, error) {
	l := &ledger{path: filepath.Join(dir, ledgerFile), live: map[string][]byte{}}
	data, err := os.ReadFile(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	there := map[string]saved{}
	for raw := range bytes.Lines(data) {
		if raw[len(raw)-1] != '\n' {
			break // cut off; what was to be done with it never was
		}
		l.lines++
		s, removed, err := readLine(raw)
		switch {
		case err != nil:
			l.odd = append(l.odd, raw)
			bad(fmt.Errorf("line %d of %s: %w", l.lines, l.path, err))
		case removed != "":
			delete(l.live, removed)
			delete(there, removed)
		default:
			l.live[s.spec.Name] = raw
			there[s.spec.Name] = s
		}
	}
	if err := l.rewrite(); err != nil {
		return nil, nil, err
	}
	return l, slices.Collect(maps.Values(there)), nil
}

// readLine is the container that a line made, or the name of the one it removed.
func readLine(raw []byte) (s saved, removed string, err error) {
	var in line
	if err := json.Unmarshal(raw, &in); err != nil {
		return s, "", err
	}
	name := in.Removed
	if in.Removed == "" {
		if err := json.Unmarshal(in.Spec, &s.spec); err != nil {
			return s, "", err
		}
		s.hash, s.groups = hashOf(in.Spec), in.Groups
		name = s.spec.Name
	}
	if !plainName(name) {
		return s, "", fmt.Errorf("%q is not a name", name)
	}
	return s, in.Removed, nil
}

// add writes down a container that is about to be. spec is its spec in JSON.
func (l *ledger) add(name string, spec []byte, groups []string) error {
	raw, err := json.Marshal(line{Spec: spec, Groups: groups})
	if err != nil {
		return err
	}
	raw = append(raw, '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(raw); err != nil {
		return err
	}
	l.live[name] = raw
	return nil
}

// remove strikes a container out.
func (l *ledger) remove(name string) error {
	raw, err := json.Marshal(line{Removed: name})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(append(raw, '\n')); err != nil {
		return err
	}
	delete(l.live, name)
	return l.tidy()
}

// append writes a line behind the last whole one.
func (l *ledger) append(raw []byte) error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := f.Write(raw)
	if err != nil {
		if info, err2 := f.Stat(); n > 0 && err2 == nil {
			err = errors.Join(err, f.Truncate(info.Size()-int64(n))) // or the next line would be part of this one
		}
		return fmt.Errorf("write %s: %w", l.path, err)
	}
	l.lines++
	return nil
}

// slack is how many lines that say nothing any more the ledger may have before
// it is written anew.
const slack = 4096

func (l *ledger) tidy() error {
	if l.lines < slack+2*len(l.live)+len(l.odd) {
		return nil
	}
	return l.rewrite()
}

// rewrite replaces the file by one that has nothing but what there is.
func (l *ledger) rewrite() error {
	all := bytes.Join(l.odd, nil)
	for _, raw := range l.live {
		all = append(all, raw...)
	}
	tmp := l.path + ".new"
	err := os.WriteFile(tmp, all, 0o600)
	if err == nil {
		err = os.Rename(tmp, l.path)
	}
	if err != nil {
		return fmt.Errorf("write %s anew: %w", l.path, err)
	}
	l.lines = len(l.live) + len(l.odd)
	return nil
}
