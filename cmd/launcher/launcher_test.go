package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/launchtest"
)

// maxSize is the promise: a program of 21 MB spends 13 ms in package
// initialisation before its first line, one of 2 MB starts and ends in 2.5 ms.
const maxSize = 3 << 20

func TestSize(t *testing.T) {
	info, err := os.Stat(launchtest.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxSize {
		t.Errorf("the launcher has %d bytes, more than %d", info.Size(), maxSize)
	}
}

// TestDependencies holds the list of what the launcher links: the standard
// library without its network and template parts, and the contract.
func TestDependencies(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}} {{.Standard}}", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	own := []string{
		"github.com/skiff-ml/skiff/cmd/launcher",
		"github.com/skiff-ml/skiff/runtime/launch",
		"github.com/skiff-ml/skiff/runtime/launch/logfile",
	}
	for line := range strings.Lines(string(out)) {
		path, standard, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case standard != "true" && !slices.Contains(own, path):
			t.Errorf("the launcher links %s", path)
		case slices.Contains([]string{"net", "net/http", "os/exec", "os/user", "regexp", "text/template", "log", "crypto/tls"}, path):
			t.Errorf("the launcher links %s, which costs start time or size", path)
		}
	}
}

// runOnce runs a launcher to its end in a fresh folder.
func runOnce(t *testing.T, cfg launch.Config, cmd launch.Command) (launch.ExitRecord, string) {
	t.Helper()
	dir := t.TempDir()
	if cfg.DaemonUID == 0 {
		cfg.DaemonUID, cfg.DaemonGID = os.Geteuid(), os.Getegid()
	}
	write := func(name string, v any) {
		data, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(launch.ConfigFile, cfg)
	write(launch.CommandFile, cmd)
	run := exec.Command(launchtest.Build(t), dir)
	run.Stderr = os.Stderr
	run.Env = append(os.Environ(), "CONTROL="+dir)
	err := run.Run()
	data, readErr := os.ReadFile(filepath.Join(dir, launch.ExitFile))
	if readErr != nil {
		t.Fatalf("%v; the launcher ended with %v", readErr, err)
	}
	var r launch.ExitRecord
	lines := bytes.Split(bytes.TrimSuffix(data, []byte{'\n'}), []byte{'\n'})
	if err := json.Unmarshal(lines[len(lines)-1], &r); err != nil {
		t.Fatal(err)
	}
	if got := run.ProcessState.ExitCode(); got != r.ExitCode {
		t.Errorf("the launcher ended with %d, its record says %d", got, r.ExitCode)
	}
	return r, dir
}

func sh(script string) launch.Command {
	return launch.Command{ID: "a", Argv: []string{"/bin/sh", "-c", script}}
}

func TestOneLineOfAGigabyte(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	cmd := sh("head -c $SIZE /dev/zero | tr '\\000' x; printf end")
	cmd.Env = []string{"SIZE=" + jsonNumber(size)}
	r, dir := runOnce(t, launch.Config{Log: launch.LogConfig{MaxBytes: 8 << 20}}, cmd)
	if r.ExitCode != 0 || r.LogBytes != size+3 || r.LogDropped == 0 {
		t.Fatalf("got %+v", r)
	}
	held := int64(0)
	files, _ := filepath.Glob(filepath.Join(dir, launch.LogPrefix+"*"))
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		held += info.Size()
	}
	if held > 8<<20 || held < 4<<20 {
		t.Errorf("%d files hold %d bytes", len(files), held)
	}
}

func jsonNumber(n int64) string {
	b, _ := json.Marshal(n)
	return string(b)
}

func TestLauncherStaysSmall(t *testing.T) {
	cmd := sh("head -c 300000000 /dev/zero; echo; grep VmHWM /proc/$PPID/status >&2")
	r, dir := runOnce(t, launch.Config{Log: launch.LogConfig{MaxBytes: 1 << 20}}, cmd)
	if r.ExitCode != 0 {
		t.Fatalf("got %+v", r)
	}
	files, _ := filepath.Glob(filepath.Join(dir, launch.LogPrefix+"*"))
	for _, file := range files {
		data, _ := os.ReadFile(file)
		_, rest, ok := strings.Cut(string(data), "VmHWM:")
		if !ok {
			continue
		}
		kb := 0
		for _, c := range strings.TrimSpace(rest) {
			if c < '0' || c > '9' {
				break
			}
			kb = 10*kb + int(c-'0')
		}
		if kb == 0 || kb > 24<<10 {
			t.Errorf("the launcher used %d KiB", kb)
		}
		return
	}
	t.Error("its memory is not in the log")
}

func TestCommandDiesBeforeTheLauncher(t *testing.T) {
	r, dir := runOnce(t, launch.Config{}, sh(`own=$(cat /proc/self/oom_score_adj); echo $own
		for try in $(seq 100); do # for the instant of the fork the launcher has the command's
			score=$(cat /proc/$PPID/oom_score_adj)
			[ $score = $own ] || break
			sleep 0.05
		done
		echo $score`))
	data, err := os.ReadFile(filepath.Join(dir, "log.0"))
	if err != nil || r.ExitCode != 0 {
		t.Fatal(err, r)
	}
	var scores []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		scores = append(scores, f[len(f)-1])
	}
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	if len(scores) != 2 || scores[0] == scores[1] || scores[1] != strings.TrimSpace(string(own)) {
		t.Errorf("the command's and the launcher's scores are %v, ours is %s", scores, own)
	}
}

func TestLinksAndCollect(t *testing.T) {
	out := t.TempDir()
	kept := filepath.Join(out, "kept")
	manifest := filepath.Join(out, "executor_output.json")
	cmd := sh(`set -e
		mkdir -p ` + out + `/own/sub
		cd ` + out + `/own
		echo model > weights; chmod 755 weights; echo more > sub/more
		ln -s weights good; ln -s sub/../../../secret bad; ln -s /etc/passwd worse; ln -s ../weights sub/up; ln -s ../../out sub/escape
		mkfifo pipe
		echo single > ` + out + `/file
		cat > ` + manifest + ` <<'X'
{"artifacts": {
  "model":  {"artifacts": [{"name": "m", "custom_path": "` + out + `/own"}]},
  "file":   {"artifacts": [{"name": "f", "customPath": "` + out + `/file"}]},
  "inside": {"artifacts": [{"customPath": "` + kept + `/inside/part"}]},
  "absent": {"artifacts": [{"customPath": "` + out + `/nothing"}]},
  "plain":  {"artifacts": [{"uri": "x"}]}}}
X
		mkdir -p ` + kept + `/inside/part; echo p > ` + kept + `/inside/part/x
		cat ` + out + `/link/x`)
	target := t.TempDir()
	if err := os.WriteFile(filepath.Join(target, "x"), []byte("linked\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Links = []launch.Link{{Path: filepath.Join(out, "link"), Target: target}, {Path: out, Target: "/nowhere"}}
	cmd.Collect = &launch.Collect{Manifest: manifest, Paths: map[string]string{}}
	for _, name := range []string{"model", "file", "inside", "absent", "plain", "unnamed"} {
		cmd.Collect.Paths[name] = filepath.Join(kept, name)
	}
	r, _ := runOnce(t, launch.Config{}, cmd)
	if r.ExitCode != 0 || len(r.OutputErrors) != 1 || r.OutputErrors["absent"] == "" {
		t.Fatalf("got %+v", r)
	}
	want := map[string]string{
		"model/weights": "model\n", "model/sub/more": "more\n", "model/good": "model\n", "model/sub/up": "model\n",
		"file": "single\n", "inside/x": "p\n",
	}
	for name, text := range want {
		if data, err := os.ReadFile(filepath.Join(kept, name)); err != nil || string(data) != text {
			t.Errorf("%s is %q, %v", name, data, err)
		}
	}
	for _, name := range []string{"model/bad", "model/worse", "model/sub/escape", "model/pipe", "plain", "unnamed", "model.collected"} {
		if _, err := os.Lstat(filepath.Join(kept, name)); err == nil {
			t.Errorf("%s was kept", name)
		}
	}
	if info, err := os.Stat(filepath.Join(kept, "model/weights")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("the mode is lost: %v, %v", info, err)
	}
}

func TestHostileControlFolder(t *testing.T) {
	// A command of the launcher's own user may write there; nothing outside
	// must change for it.
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, dir := runOnce(t, launch.Config{Log: launch.LogConfig{MaxBytes: 8 << 10}}, sh(`
		cd "$CONTROL"
		ln -s `+victim+` exit.json.tmp; ln -s `+victim+` log.1; ln -s `+victim+` log.2
		mkfifo log.3
		head -c 100000 /dev/zero | tr '\000' '\n'`))
	if r.ExitCode != 0 {
		t.Errorf("got %+v", r)
	}
	if data, _ := os.ReadFile(victim); string(data) != "safe" {
		t.Errorf("the file outside became %q", data)
	}
	if info, err := os.Lstat(filepath.Join(dir, launch.ExitFile)); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the exit record is %v, %v", info, err)
	}
}

// TestForgedRecord: whatever a command of the launcher's own user does to the lock
// and the record, the launcher has the last word.
func TestForgedRecord(t *testing.T) {
	const forged = `{"version":1,"commandID":"a","exitCode":0,"reason":"Completed","finishedAt":"2026-01-01T00:00:00Z"}`
	for _, script := range []string{
		`echo '` + forged + `' >>lock`,
		`head -c 100000 /dev/zero >lock; echo '` + forged + `' >>lock`,
		`: >lock`,
		`rm lock`,
		`rm lock; echo '` + forged + `' >lock`,
		`ln lock other; mv other exit.json`,
		`mv lock exit.json; echo '` + forged + `' >>exit.json`,
		`echo '` + forged + `' >exit.json`,
		`rm lock; ln -s /etc/passwd lock`,
	} {
		r, dir := runOnce(t, launch.Config{}, sh(`cd "$CONTROL"; `+script+`; exit 3`))
		if r.ExitCode != 3 {
			t.Errorf("%s: the record says %+v", script, r)
		}
		if info, err := os.Lstat(filepath.Join(dir, launch.ExitFile)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: the exit record is %v, %v", script, info, err)
		}
	}
}

func TestRefusesASecondLife(t *testing.T) {
	_, dir := runOnce(t, launch.Config{}, sh("exit 3"))
	before, err := os.ReadFile(filepath.Join(dir, launch.ExitFile))
	if err != nil {
		t.Fatal(err)
	}
	again := exec.Command(launchtest.Build(t), dir)
	if err := again.Run(); again.ProcessState == nil || again.ProcessState.ExitCode() != codeRefused {
		t.Errorf("the second life ended with %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, launch.ExitFile)); string(after) != string(before) {
		t.Errorf("the record became %s", after)
	}
}

func TestFilesAreTheDaemons(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give files away")
	}
	out := t.TempDir()
	cmd := sh("echo x")
	cmd.Directories = []string{filepath.Join(out, "a", "b")}
	_, dir := runOnce(t, launch.Config{DaemonUID: 4321, DaemonGID: 4322}, cmd)
	for _, path := range []string{
		filepath.Join(dir, launch.ExitFile), filepath.Join(dir, "log.0"),
		filepath.Join(out, "a"), filepath.Join(out, "a", "b"),
	} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 4321 || st.Gid != 4322 {
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
	}
}

// TestWaitingIsCheap bounds what a warm container costs.
func TestWaitingIsCheap(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, launch.ConfigFile), []byte(`{"version":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(launchtest.Build(t), dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()         //nolint:errcheck // It is killed.
	defer cmd.Process.Kill() //nolint:errcheck // It may have ended.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, launch.SocketFile)); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not come up")
		}
	}
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "RssAnon:" {
			if kb, err := strconv.Atoi(f[1]); err != nil || kb > 4<<10 {
				t.Errorf("it holds %s KiB", f[1])
			}
			t.Logf("a waiting launcher holds %s KiB", f[1])
			return
		}
	}
	t.Error("the kernel does not tell its memory")
}
