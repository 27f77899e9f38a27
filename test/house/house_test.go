package house_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/skiff-ml/skiff"

// floors says which folders a folder may import from; itself is always allowed,
// except between engines. The order is that of docs/architecture.md.
func floors() map[string][]string {
	return map[string][]string{
		"api":       {},
		"store":     {"api"},
		"scheduler": {"api"},
		"runtime":   {"api", "plugins/proto"},
		"engine":    {"api", "store", "scheduler", "runtime"},
		"server":    {"api", "store", "ui"},
		"ui":        {},
		"plugins":   {"api", "plugins/proto"},
		"cmd":       {"api", "store", "scheduler", "runtime", "engine", "server", "plugins/proto", "cmd"},
		"examples":  {},
		"test":      {"api", "store", "scheduler", "runtime", "engine", "server", "plugins/proto", "cmd", "test"},
	}
}

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	GoFiles      []string
	CgoFiles     []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	DepsErrors   []struct{ Err string }
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// list runs go list as for the daemon: without cgo.
func list(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-e", "-json"}, patterns...)...)
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// every lists the module's packages once for all tests.
func every(t *testing.T) []pkg {
	t.Helper()
	everyOnce.Do(func() { everyPackage = list(t, "./...") })
	if len(everyPackage) < 10 {
		t.Fatalf("go list found %d packages; these tests would prove nothing", len(everyPackage))
	}
	return everyPackage
}

var (
	everyOnce    sync.Once
	everyPackage []pkg
)

// room is the floor of a package path below the module, with engines and
// plugins apart from each other: "api", "engine/pipeline", "plugins/nvml".
func room(relative string) (floor, part string) {
	first, rest, _ := strings.Cut(relative, "/")
	second, _, _ := strings.Cut(rest, "/")
	if (first == "engine" || first == "plugins") && second != "" {
		return first, first + "/" + second
	}
	return first, first
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range every(t) {
		if p.ImportPath == module {
			continue
		}
		relative := strings.TrimPrefix(p.ImportPath, module+"/")
		floor, part := room(relative)
		allowed, known := floors()[floor]
		if !known {
			t.Errorf("%s: the folder %s is none of docs/architecture.md; give it a floor here and there", p.ImportPath, floor)
			continue
		}
		for _, imported := range p.Imports {
			below, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			otherFloor, otherPart := room(below)
			switch {
			case part == otherPart, slices.Contains(allowed, otherFloor), slices.Contains(allowed, otherPart):
			case floor == "engine" && otherFloor == "engine":
				t.Errorf("%s imports %s: engines know each other only through objects in the store", relative, below)
			default:
				t.Errorf("%s imports %s: %s may import %v", relative, below, floor, allowed)
			}
		}
	}
}

// TestCommandsStandAlone: the launcher is the standard library and its protocol,
// and no two programs share code that is not a room's.
func TestCommandsStandAlone(t *testing.T) {
	for _, p := range every(t) {
		relative := strings.TrimPrefix(p.ImportPath, module+"/")
		if !strings.HasPrefix(relative, "cmd/") {
			continue
		}
		own := strings.Join(strings.SplitN(relative, "/", 3)[:2], "/")
		for _, imported := range p.Imports {
			below, ours := strings.CutPrefix(imported, module+"/")
			if ours && strings.HasPrefix(below, "cmd/") && !strings.HasPrefix(below, own) {
				t.Errorf("%s imports %s of another program", relative, below)
			}
			if own == "cmd/launcher" && !standard(imported) && !strings.HasPrefix(imported, module+"/cmd/launcher") &&
				!strings.HasPrefix(imported, module+"/runtime/launch") {
				t.Errorf("%s imports %s: the launcher is the standard library and runtime/launch", relative, imported)
			}
		}
	}
}

func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// owners says who alone may import what.
func owners() map[string][]string {
	return map[string][]string{
		"github.com/docker/docker":     {"runtime/docker", "test"},
		"github.com/NVIDIA/go-nvml":    {"plugins/nvml"},
		"go.etcd.io/bbolt":             {"store", "test"},
		"github.com/spf13/cobra":       {"cmd/skiff"},
		"github.com/minio/minio-go":    {"store/artifact", "test"},
		"github.com/hashicorp/go-plug": {"runtime/plugin", "plugins", "test"},
		"cel.dev/cel-go":               {"engine/pipeline"},
	}
}

func TestLibrariesHaveOneOwner(t *testing.T) {
	for _, p := range every(t) {
		relative := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imported := range p.Imports {
			for library, allowed := range owners() {
				if !strings.HasPrefix(imported, library) {
					continue
				}
				if !slices.ContainsFunc(allowed, func(folder string) bool {
					return relative == folder || strings.HasPrefix(relative, folder+"/")
				}) {
					t.Errorf("%s imports %s, which only %v may", relative, imported, allowed)
				}
			}
		}
	}
}

// TestTheDaemonLinksNoKubernetes looks at everything that ends up in the
// binary, whoever imported it.
func TestTheDaemonLinksNoKubernetes(t *testing.T) {
	for _, p := range list(t, "./cmd/skiff", "./cmd/launcher") {
		if len(p.Deps) < 20 {
			t.Errorf("%s has %d dependencies; go list did not see it: %v", p.ImportPath, len(p.Deps), p.DepsErrors)
		}
		for _, dep := range p.Deps {
			// sigs.k8s.io/yaml is a YAML library and has no Kubernetes in it.
			if strings.HasPrefix(dep, "k8s.io/") || (strings.HasPrefix(dep, "sigs.k8s.io/") && !strings.HasPrefix(dep, "sigs.k8s.io/yaml")) {
				t.Errorf("%s links %s", p.ImportPath, dep)
			}
			if dep == "runtime/cgo" {
				t.Errorf("%s links cgo", p.ImportPath)
			}
		}
	}
}

// TestTheDaemonBuildsWithoutCgo compiles it; what the build found in its cache
// costs nothing.
func TestTheDaemonBuildsWithoutCgo(t *testing.T) {
	for _, program := range []string{"./cmd/launcher", "./cmd/skiff"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(t.TempDir(), path.Base(program)), program)
		cmd.Dir = root(t)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("build %s: %v\n%s", program, err, out)
		}
	}
}

// TestEveryPackageSaysWhatItIs: one package comment in each, that begins as Go's
// tools expect.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range every(t) {
		var found []string
		for _, file := range slices.Concat(p.GoFiles, p.CgoFiles) {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if parsed.Doc == nil || ast.IsGenerated(parsed) {
				continue
			}
			found = append(found, file)
			want := "Package " + p.Name + " "
			if p.Name == "main" {
				want = "Command "
			}
			if text := parsed.Doc.Text(); !strings.HasPrefix(text, want) {
				t.Errorf("%s: %s: the package comment begins with %.30q, want %q", p.ImportPath, file, text, want)
			}
		}
		if len(p.GoFiles)+len(p.CgoFiles) > 0 && len(found) != 1 {
			t.Errorf("%s has %d package comments (%v), want 1", p.ImportPath, len(found), found)
		}
	}
}

// TestTheModuleStandsOnItsOwn: no replace, no exclude, and the name that others
// import.
func TestTheModuleStandsOnItsOwn(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Module  struct{ Path string }
		Replace []json.RawMessage
		Exclude []json.RawMessage
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	if mod.Module.Path != module || len(mod.Replace) > 0 || len(mod.Exclude) > 0 {
		t.Errorf("go.mod: %s", out)
	}
}

// TestNoInit: a package does nothing only because it is linked in.
func TestNoInit(t *testing.T) {
	for _, p := range every(t) {
		for _, file := range p.GoFiles {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ParseComments)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if ast.IsGenerated(parsed) {
				continue
			}
			for _, declaration := range parsed.Decls {
				if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s/%s has an init function", p.ImportPath, file)
				}
			}
		}
	}
}

// TestDependenciesAreAccountedFor: every module that the code imports itself has
// a line in docs/dependencies.md.
func TestDependenciesAreAccountedFor(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for _, p := range every(t) {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if standard(imported) || strings.HasPrefix(imported, module) {
				continue
			}
			if !slices.ContainsFunc(prefixes(imported), func(prefix string) bool { return bytes.Contains(text, []byte("`"+prefix+"`")) }) {
				missing[imported] = true
			}
		}
	}
	for _, imported := range slices.Sorted(maps.Keys(missing)) {
		t.Errorf("%s has no line in docs/dependencies.md", imported)
	}
}

// prefixes are the paths that a package's module may have.
func prefixes(importPath string) []string {
	var all []string
	for p := importPath; p != "." && p != "/"; p = path.Dir(p) {
		all = append(all, p)
	}
	return all
}
