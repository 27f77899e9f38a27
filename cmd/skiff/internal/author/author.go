package author

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed compile.py
var helper string

// Request is what to compile.
type Request struct {
	// File is the Python file; Function the name of a pipeline or component in
	// it, empty where there is only one.
	File, Function string
	// Python is the interpreter that was asked for; empty finds one by rule.
	Python string
	// Output takes what the file prints; nil drops it.
	Output io.Writer
}

// Split takes "FILE.py" and "FILE.py:FUNCTION" apart. ok is false for what is no
// Python file.
func Split(arg string) (file, function string, ok bool) {
	if strings.HasSuffix(arg, ".py") {
		return arg, "", true
	}
	if at := strings.LastIndex(arg, ".py:"); at >= 0 && !strings.Contains(arg[at:], "/") {
		return arg[:at+3], arg[at+4:], true
	}
	return "", "", false
}

// Interpreter is a Python and why it was taken.
type Interpreter struct{ Path, Reason string }

// FindInterpreter takes the one that was asked for, else that of the active
// virtual environment, else python3 from PATH. An error says how to name one.
func FindInterpreter(asked string) (Interpreter, error) {
	candidate := Interpreter{Path: asked, Reason: "--python"}
	if asked == "" {
		candidate = Interpreter{Path: "python3", Reason: "python3 in PATH"}
		if venv := os.Getenv("VIRTUAL_ENV"); venv != "" {
			candidate = Interpreter{Path: filepath.Join(venv, "bin", "python"), Reason: "VIRTUAL_ENV"}
		}
	}
	path, err := exec.LookPath(candidate.Path)
	if err != nil {
		return candidate, fmt.Errorf("find the Python interpreter (%s): %w; name one that has kfp with --python PATH", candidate.Reason, err)
	}
	candidate.Path = path
	return candidate, nil
}

// verdict is what the helper says.
type verdict struct {
	Kind       string   `json:"kind"`
	KFP        string   `json:"kfp"`
	Module     string   `json:"module"`
	Type       string   `json:"type"`
	Message    string   `json:"message"`
	Frames     []frame  `json:"frames"`
	Pipelines  []string `json:"pipelines"`
	Components []string `json:"components"`
}

type frame struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Function string `json:"function"`
	Text     string `json:"text"`
}

// maxVerdict bounds what is read of the helper's answer.
const maxVerdict = 1 << 20

// Compile runs the file in a Python process and returns the compiled package,
// as YAML. Errors are for the person who wrote the file: one line with the
// remedy, or the lines of their own code that led to it.
func Compile(ctx context.Context, req Request) ([]byte, error) {
	source, err := filepath.Abs(req.File)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", req.File, err)
	}
	if info, err := os.Stat(source); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("compile %s: there is no such file", req.File)
	}
	python, err := FindInterpreter(req.Python)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "skiff-compile-")
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", req.File, err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	pack, answer := filepath.Join(dir, "package.yaml"), filepath.Join(dir, "verdict.json")
	cmd := exec.CommandContext(ctx, python.Path, "-c", helper, source, req.Function, pack, answer)
	cmd.Stdout, cmd.Stderr = req.Output, req.Output
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("compile %s: %w", req.File, context.Cause(ctx))
	}
	found, err := readVerdict(answer)
	if err != nil {
		// The interpreter itself died, or the file killed it.
		return nil, fmt.Errorf("compile %s with %s: %w", req.File, python.Path, errors.Join(runErr, err))
	}
	if found.Kind != "" {
		return nil, found.explain(req, python)
	}
	content, err := os.ReadFile(pack)
	if err != nil {
		return nil, fmt.Errorf("compile %s: kfp %s wrote no package: %w", req.File, found.KFP, err)
	}
	return content, nil
}

func readVerdict(path string) (verdict, error) {
	f, err := os.Open(path)
	if err != nil {
		return verdict{}, errors.New("it ended without an answer")
	}
	defer func() { _ = f.Close() }()
	var found verdict
	if err := json.NewDecoder(io.LimitReader(f, maxVerdict)).Decode(&found); err != nil {
		return verdict{}, fmt.Errorf("read its answer: %w", err)
	}
	return found, nil
}

// explain words a refusal.
func (v *verdict) explain(req Request, python Interpreter) error {
	remedy := fmt.Sprintf("install it with \"%s -m pip install %%s\", or name another interpreter with --python", python.Path)
	interpreter := fmt.Sprintf("%s (%s)", python.Path, python.Reason)
	switch v.Kind {
	case "no-kfp":
		return fmt.Errorf("compile %s: %s has no kfp; "+remedy, req.File, interpreter, "kfp")
	case "broken-kfp":
		return fmt.Errorf("compile %s: %s cannot import its kfp: %s; "+remedy, req.File, interpreter, v.Message, "--force-reinstall kfp")
	case "no-module":
		return fmt.Errorf("compile %s: %s has no module %s; "+remedy, v.place(req), interpreter, v.Module, distribution(v.Module))
	case "none":
		return fmt.Errorf("compile %s: it defines no pipeline; decorate a function with @dsl.pipeline or @dsl.component", req.File)
	case "several":
		return fmt.Errorf("compile %s: it defines several; choose one: %s", req.File, v.choices(req))
	case "no-function":
		return fmt.Errorf("compile %s: it defines no %q; choose one: %s", req.File, req.Function, v.choices(req))
	case "not-a-pipeline":
		return fmt.Errorf("compile %s: %q is neither a pipeline nor a component; choose one: %s", req.File, req.Function, v.choices(req))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "compile %s: %s: %s", req.File, v.Type, v.Message)
	for _, f := range v.Frames {
		fmt.Fprintf(&b, "\n  %s:%d", shorten(f.File), f.Line)
		if f.Function != "" && f.Function != "<module>" {
			fmt.Fprintf(&b, " in %s", f.Function)
		}
		if f.Text != "" {
			fmt.Fprintf(&b, "\n    %s", f.Text)
		}
	}
	return errors.New(b.String())
}

// distribution is what to install for a module: mostly its own name. These are
// the ones that pipelines import most and that have another.
func distribution(module string) string {
	named := map[string]string{
		"kfp.kubernetes": "kfp-kubernetes", "sklearn": "scikit-learn", "yaml": "pyyaml", "cv2": "opencv-python",
		"PIL": "pillow", "google_cloud_pipeline_components": "google-cloud-pipeline-components",
	}
	if name, ok := named[module]; ok {
		return name
	}
	return module
}

// place is the last line of the user's own code, or the file.
func (v *verdict) place(req Request) string {
	if len(v.Frames) == 0 {
		return req.File
	}
	last := v.Frames[len(v.Frames)-1]
	return fmt.Sprintf("%s:%d", shorten(last.File), last.Line)
}

// choices are the arguments that would name one: pipelines, and components
// where there is no pipeline.
func (v *verdict) choices(req Request) string {
	names := v.Pipelines
	if len(names) == 0 || req.Function != "" {
		names = append(names, v.Components...)
	}
	if len(names) == 0 {
		return "there is none; decorate a function with @dsl.pipeline or @dsl.component"
	}
	for i, name := range names {
		names[i] = req.File + ":" + name
	}
	return strings.Join(names, ", ")
}

// shorten makes a path one that a person would type.
func shorten(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(wd, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return path
	}
	return rel
}
