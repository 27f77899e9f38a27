package device

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/problem"
)

// FakePrefix begins the UUID of every declared device and of no real one, so a
// fake cannot be mistaken wherever its name turns up: in a table, in a
// container's environment, in a log. CUDA knows no device of such a name, so a
// program that was granted a fake sees none even beside real ones.
const FakePrefix = "GPU-FAKE-"

// maxFixture bounds a user's declaration file; a full matrix of MaxDevices
// devices takes a fraction of it.
const maxFixture = 1 << 20

//go:embed fixtures/*.json
var fixtures embed.FS

// FakeNames are the declarations that come with skiff, sorted.
func FakeNames() []string {
	entries, err := fs.ReadDir(fixtures, "fixtures")
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".json")
	}
	slices.Sort(names)
	return names
}

// ForcePrefix before a name or file declares it even on a machine that has real
// devices, which are then not used.
const ForcePrefix = "force:"

// Declare is LoadFake for a daemon on the machine whose file system is root
// (os.DirFS("/")): it refuses what RefuseFake refuses.
func Declare(nameOrFile string, root fs.FS) (*Static, error) {
	declared, err := LoadFake(nameOrFile)
	if err != nil {
		return nil, err
	}
	if err := RefuseFake(declared, ReadProc(root)); err != nil {
		return nil, err
	}
	return NewStatic(declared), nil
}

// LoadFake is the inventory that --fake-gpus declares: one that comes with
// skiff, by name, or a file of the same form (docs/gpu.md), each with or without
// ForcePrefix. What is wrong with a file is a problem.List with field paths, an
// ErrInvalid.
func LoadFake(nameOrFile string) (Inventory, error) {
	if name, forced := strings.CutPrefix(nameOrFile, ForcePrefix); forced {
		v, err := LoadFake(name)
		v.Forced = true
		return v, err
	}
	if slices.Contains(FakeNames(), nameOrFile) {
		data, err := fixtures.ReadFile(path.Join("fixtures", nameOrFile+".json"))
		if err != nil {
			return Inventory{}, fmt.Errorf("read fake GPUs %s: %w", nameOrFile, err)
		}
		return parseFake(data, nameOrFile)
	}
	data, err := readFixture(nameOrFile)
	if err != nil {
		return Inventory{}, problem.List{{
			Op: "read fake GPUs", Object: nameOrFile, Err: err,
			Hint: "name a file, or one of " + strings.Join(FakeNames(), ", "),
		}}
	}
	return parseFake(data, nameOrFile)
}

// readFixture reads a regular file of bounded size.
func readFixture(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		if e := (*fs.PathError)(nil); errors.As(err, &e) {
			return nil, e.Err // the path is named by the caller
		}
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFixture+1))
	if err == nil && len(data) > maxFixture {
		err = fmt.Errorf("larger than %d bytes", maxFixture)
	}
	return data, err
}

// RefuseFake says why declared devices may not be used on this machine: it has
// real ones, and claims on declared devices would leave those idle or unguarded.
// nil where there are none, or where it was forced.
func RefuseFake(declared, realOnes Inventory) error {
	if declared.Forced || realOnes.Fake || len(realOnes.Devices) == 0 {
		return nil
	}
	return &problem.Error{
		Op:   "declare fake GPUs",
		Err:  fmt.Errorf("this machine has real ones: %s: %w", realOnes.Summary(), problem.ErrInvalid),
		Hint: "leave --fake-gpus out, or write --fake-gpus " + ForcePrefix + "NAME to leave the real devices unused on purpose",
	}
}

// Static is a Source that never changes: declared devices, or none.
type Static struct{ inventory Inventory }

var _ Source = (*Static)(nil)

// NewStatic serves one inventory for ever.
func NewStatic(v Inventory) *Static { return &Static{inventory: v.Clone()} }

// None is the source of a node without devices; the note says why.
func None(note string) *Static {
	return NewStatic(Inventory{Devices: []Device{}, Source: "none", Notes: []string{note}})
}

// Inventory is what NewStatic got.
func (s *Static) Inventory(context.Context) (Inventory, error) { return s.inventory.Clone(), nil }

// Watch tells of the one inventory and waits for ctx to end.
func (s *Static) Watch(ctx context.Context, fn func(Inventory)) error {
	fn(s.inventory.Clone())
	<-ctx.Done()
	return context.Cause(ctx)
}

// Usage is of declared devices, which nobody can use.
func (s *Static) Usage(context.Context) ([]Usage, []Process, error) {
	usage := make([]Usage, len(s.inventory.Devices))
	for i, d := range s.inventory.Devices {
		usage[i] = Usage{UUID: d.UUID, BusyPercent: 0}
	}
	return usage, nil, nil
}
