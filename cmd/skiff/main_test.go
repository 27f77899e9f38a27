package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/cli"
)

// TestMain makes this test binary the skiff that scripts run, and the one that
// skiff starts by its own file's name: for store checks and in the background.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"skiff": func() {
			os.Exit(cli.Main(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, "v0.0.0-test"))
		},
	})
}

// TestScripts runs every command as a user does, over the process runtime.
func TestScripts(t *testing.T) {
	if _, err := os.Stat("../../runtime/launch/embedded/bin/launcher"); err != nil {
		t.Fatalf("the launcher is not built, so nothing can run: %v; make launcher builds it", err)
	}
	pipelines, err := filepath.Abs("testdata/pipelines")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Condition:           condition,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			// Sockets have short paths here as for users; a home of its own
			// keeps the user's state out of it.
			env.Setenv("SKIFF_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("PIPELINES", pipelines)
			env.Setenv("EXAMPLES", examples)
			env.Setenv("KFP_VENV", kfpVenv())
			env.Setenv("PATH", env.Getenv("PATH")+string(os.PathListSeparator)+os.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await": await, "code": exitCode, "capture": capture, "match": match, "samelines": sameLines, "signal": sendSignal,
		},
	})
}

// condition knows "kfp": the SDK is there to compile with.
func condition(name string) (bool, error) {
	if name != "kfp" {
		return false, fmt.Errorf("there is no condition %q", name)
	}
	_, err := os.Stat(filepath.Join(kfpVenv(), ".complete"))
	return err == nil, nil
}

// kfpVenv is the environment that test/venv.sh makes, of the version
// that it names, or the one that SKIFF_TEST_KFP_VENV names instead.
func kfpVenv() string {
	if named := os.Getenv("SKIFF_TEST_KFP_VENV"); named != "" {
		return named
	}
	script, err := os.ReadFile("../../test/venv.sh")
	version := regexp.MustCompile(`(?m)^version=(\S+)$`).FindSubmatch(script)
	if err != nil || version == nil {
		return ""
	}
	base := os.Getenv("SKIFF_CACHE")
	if base == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		base = filepath.Join(cache, "skiff-dev")
	}
	return filepath.Join(base, "venv", "kfp-"+string(version[1]))
}

// limit is how long a script waits for what must come.
const limit = 90 * time.Second

// await runs a command until it succeeds (with ! until it fails) and, where a
// pattern comes before "--", until its output matches.
func await(ts *testscript.TestScript, neg bool, args []string) {
	var pattern *regexp.Regexp
	if len(args) > 2 && args[1] == "--" {
		pattern = regexp.MustCompile(args[0])
		args = args[2:]
	}
	if len(args) == 0 {
		ts.Fatalf("usage: await [PATTERN --] COMMAND…")
	}
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		err = ts.Exec(args[0], args[1:]...)
		if (err == nil) != neg && (pattern == nil || pattern.MatchString(ts.ReadFile("stdout"))) {
			return
		}
	}
	ts.Fatalf("%s did not come to pass: %v\n%s%s", strings.Join(args, " "), err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
}

// exitCode runs a command that must end with a code.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code NUMBER COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var exit *exec.ExitError
	err = ts.Exec(args[1], args[2:]...)
	if got := 0; !errors.As(err, &exit) || exit.ExitCode() != want {
		if exit != nil {
			got = exit.ExitCode()
		}
		ts.Fatalf("exit code %d (%v), want %d\n%s", got, err, want, ts.ReadFile("stderr"))
	}
}

// capture puts the first group of a pattern in the last output into a variable.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME PATTERN")
	}
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) < 2 {
		ts.Fatalf("the output does not match %s:\n%s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], found[1])
}

// match compares the last output with a golden file in which <…> stands for
// anything without a line break: ids, times and durations.
func match(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: match FILE")
	}
	pattern := regexp.QuoteMeta(strings.TrimSpace(ts.ReadFile(args[0])))
	pattern = regexp.MustCompile(`<[^>\n]*>`).ReplaceAllString(pattern, `[^\n]*`)
	// Columns are as wide as their longest cell, which may be an id.
	pattern = regexp.MustCompile(` {2,}`).ReplaceAllString(pattern, ` +`)
	got := strings.TrimSpace(ts.ReadFile("stdout"))
	if !regexp.MustCompile(`^` + pattern + `$`).MatchString(got) {
		ts.Fatalf("got\n%s\nwant\n%s", got, ts.ReadFile(args[0]))
	}
}

// sameLines compares the last output with a file whatever the order of lines:
// between two streams it is that of the reading, not of the writing.
func sameLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: samelines FILE")
	}
	sorted := func(name string) string {
		return strings.Join(slices.Sorted(strings.Lines(ts.ReadFile(name))), "")
	}
	if got, want := sorted("stdout"), sorted(args[0]); got != want {
		ts.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

// sendSignal signals the process whose id is in a file.
func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signal INT|TERM|KILL PIDFILE")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[1])))
	ts.Check(err)
	number, known := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}[args[0]]
	if !known {
		ts.Fatalf("no signal %s", args[0])
	}
	ts.Check(syscall.Kill(pid, number))
}
