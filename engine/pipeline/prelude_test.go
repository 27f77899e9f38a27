package pipeline

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
)

// ensure is how every prelude of the SDK begins.
const ensure = `
if ! [ -x "$(command -v pip)" ]; then
    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip
fi

`

const pip = "PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location "

func quiet(packages ...string) core.PipCall {
	return core.PipCall{Options: []string{"--quiet", "--no-warn-script-location"}, Packages: packages}
}

func TestRecognisePrelude(t *testing.T) {
	run := ` && "$0" "$@"` + "\n"
	for _, tt := range []struct {
		name, script string
		want         []core.PipCall
	}{
		{"one", ensure + pip + "'kfp==2.17.0'" + run, []core.PipCall{quiet("kfp==2.17.0")}},
		{"several packages", ensure + pip + "'a==1' 'b>=2,<3' 'c[extra]'" + run, []core.PipCall{quiet("a==1", "b>=2,<3", "c[extra]")}},
		{"two calls", ensure + pip + "'kfp==2.17.0' '--no-deps' 'typing-extensions>=3.7.4,<5; python_version<\"3.9\"'  &&  python3 -m pip install --quiet --no-warn-script-location 'numpy'" + run,
			[]core.PipCall{
				{Options: []string{"--quiet", "--no-warn-script-location", "--no-deps"}, Packages: []string{"kfp==2.17.0", `typing-extensions>=3.7.4,<5; python_version<"3.9"`}},
				quiet("numpy"),
			}},
		{"an index", ensure + pip + "--index-url https://host.example/simple --trusted-host https://host.example/simple 'a'" + run, []core.PipCall{
			{Options: []string{"--quiet", "--no-warn-script-location", "--index-url", "https://host.example/simple", "--trusted-host", "https://host.example/simple"}, Packages: []string{"a"}},
		}},
		{"an address", ensure + pip + "'git+https://host.example/a.git@v1#egg=a'" + run, []core.PipCall{quiet("git+https://host.example/a.git@v1#egg=a")}},
		{"without a prelude", `"$0" "$@"`, nil},
		{"without ensurepip", pip + "'kfp'" + run, nil},
		{"without calls", ensure + `"$0" "$@"`, nil},
		{"without packages", ensure + "python3 -m pip install" + run, nil},
		{"another last command", ensure + pip + `'kfp' && exec "$0" "$@"`, nil},
		{"a command in between", ensure + pip + "'kfp' && rm -rf x" + run, nil},
		{"a command after", ensure + pip + "'kfp'" + ` && "$0" "$@"; true`, nil},
		{"either", ensure + pip + "'kfp' || true" + run, nil},
		{"in the background", ensure + pip + "'kfp' & true" + run, nil},
		{"a variable", ensure + pip + "$PACKAGES" + run, nil},
		{"a substitution", ensure + pip + "`cat requirements`" + run, nil},
		{"a redirection", ensure + pip + "'kfp' > /dev/null" + run, nil},
		{"a quote that is glued on", ensure + pip + "a'b'" + run, nil},
		{"an open quote", ensure + pip + "'kfp" + run, nil},
		{"double quotes", ensure + pip + `"kfp"` + run, nil},
		{"another installer", ensure + "uv pip install 'kfp'" + run, nil},
		{"another interpreter", ensure + "python -m pip install 'kfp'" + run, nil},
		{"more before", "cd /src\n" + ensure + pip + "'kfp'" + run, nil},
		{"more in the check", strings.Replace(ensure, "\nfi", "\n echo\nfi", 1) + pip + "'kfp'" + run, nil},
		{"a placeholder", ensure + pip + "'{{$.inputs.parameters['package']}}'" + run, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			compiled := []string{"sh", "-c", tt.script, "sh", "-ec", "program", "{{$}}"}
			resolved := []string{"sh", "-c", tt.script, "sh", "-ec", "program", "{}"}
			got := recognisePrelude(compiled, resolved)
			if tt.want == nil {
				if got != nil {
					t.Errorf("recognised as %v", got.Calls)
				}
				return
			}
			if diff := cmp.Diff(&core.Environment{Calls: tt.want, Command: resolved[3:]}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	good := ensure + pip + "'kfp'" + run
	for _, command := range [][]string{
		nil, {"sh"}, {"sh", "-c"}, {"sh", "-c", good}, {"bash", "-c", good, "x"}, {"sh", "-ec", good, "x"}, {"echo", "-c", good, "x"},
	} {
		if got := recognisePrelude(command, command); got != nil {
			t.Errorf("%.40q is recognised as %v", command, got)
		}
	}
}

// TestPreludesOfTheCorpora: every installation that the SDK ever compiled here is
// recognised, with each of its packages.
func TestPreludesOfTheCorpora(t *testing.T) {
	recognised := 0
	for _, folder := range []string{"../../test/corpus", "../../../shared/conformance/kfp"} {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" || strings.Contains(path, "/invalid/") {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			pkg, err := kfp.Load(path, data, kfp.Limits{})
			if err != nil {
				return nil // an expectation file, or one that is to be refused
			}
			for label, executor := range pkg.Spec.DeploymentSpec.Executors {
				if executor.Container == nil || !strings.Contains(strings.Join(executor.Container.Command, " "), "pip install") {
					continue
				}
				command := executor.Container.Command
				env := recognisePrelude(command, command)
				if strings.Contains(command[2], "python3 -m venv") {
					// It asks for an environment of its own making.
					if env != nil {
						t.Errorf("%s: %s is recognised as %v", path, label, env.Calls)
					}
					continue
				}
				if env == nil {
					t.Errorf("%s: %s is not recognised: %q", path, label, command[2])
					continue
				}
				recognised++
				packages := 0
				for _, call := range env.Calls {
					packages += len(call.Packages)
					for _, p := range call.Packages {
						if strings.ContainsAny(p, "'$&|") || !strings.Contains(command[2], p) {
							t.Errorf("%s: %s: package %q", path, label, p)
						}
					}
				}
				if calls := strings.Count(command[2], "pip install "); calls != len(env.Calls) || packages < calls {
					t.Errorf("%s: %s: %d packages in %d calls of %d", path, label, packages, len(env.Calls), calls)
				}
			}
			return nil
		})
		if os.IsNotExist(err) && strings.HasPrefix(folder, "../../../") {
			continue // the public corpus is not beside this checkout
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if recognised < 100 {
		t.Errorf("%d preludes, want the corpus's 100 at least", recognised)
	}
}
